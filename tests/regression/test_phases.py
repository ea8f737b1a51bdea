"""Phases of training: objectives that are forgotten, and groups that one loss splits."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders
from tests.support.shipped import plain
from tests.support.three_tasks import F64, Tasks


def test_a_phase_that_is_over_no_longer_splits_the_trunk():
    model = Tasks()
    surgery = gs.Surgery("gradvac", model, every=2)
    penalty = lambda: {"warm-up": model.trunk[0].weight.pow(2).sum()}  # noqa: E731
    surgery.backward(penalty())
    assert "a+b+c+warm-up" in surgery.backward(model.losses(1.0))
    before = surgery.state_dict()
    for wrong, message in (((), "name the objectives"), (("warmup",), "Did you mean 'warm-up'")):
        with pytest.raises(gs.InputError, match=message):
            surgery.forget(*wrong)
    assert plain(surgery.state_dict()) == plain(before)
    surgery.forget("warm-up")
    record = surgery.backward(model.losses(1.0, seed=1))
    assert list(record) == ["a+b+c", "a", "b", "c"]
    assert record["a+b+c"].parameters == 2
    assert not record["a+b+c"].replayed
    again = gs.Surgery("gradvac", Tasks(), every=2)
    again.load_state_dict(surgery.state_dict())
    assert plain(again.state_dict()) == plain(surgery.state_dict())


def test_forgetting_keeps_the_state_of_the_others_by_parameter():
    """Rows of both parts go on: `moco` after the split was forgotten remembers what it knew of each
    parameter.
    """
    model = Tasks()
    surgery = gs.Surgery("moco", model)
    surgery.backward(model.losses(1.0))
    surgery.backward({**model.losses(1.0, 1), "extra": model.trunk[0].weight.pow(2).sum()})
    groups = {
        key: dict(next(iter(state["tensors"].values()), ()))
        for key, state in surgery.state_dict()["groups"]
    }
    of_weight, of_bias = groups["a", "b", "c", "extra"], groups["a", "b", "c"]
    rows = {
        (o, p): rows[o, p]
        for o in "abc"
        for p, rows in (("trunk.0.weight", of_weight), ("trunk.0.bias", of_bias))
    }
    surgery.forget("extra")
    groups = dict(surgery.state_dict()["groups"])
    joined = dict(next(iter(groups["a", "b", "c"]["tensors"].values())))
    assert joined.keys() == rows.keys()
    assert all(torch.equal(joined[key], rows[key]) for key in rows)
    assert all(
        "extra" not in key
        for _, state in surgery.state_dict()["groups"]
        for key in dict(next(iter(state["tensors"].values()), ()))
    )
    surgery.backward(model.losses(1.0, 2))
    surgery.accumulate(model.losses(1.0))
    with pytest.raises(gs.InputError, match="combine"):
        surgery.forget("a")


def physics(net):
    t = torch.linspace(0, 1, 9, dtype=F64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(net(t).sum(), t, create_graph=True)
    return {
        "residual": (slope + 1).pow(2).mean(),
        "start": (net(torch.zeros(1, 1, dtype=F64)) - 1).pow(2).mean(),
    }


def test_a_record_says_which_loss_splits_one_tensor_off():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    text = str(gs.backward(physics(net), net, "config"))
    assert text.count("apart from") == 1
    assert "'residual' does not reach it (one group for both: parameters={'net': net})" in text
    assert "apart from" not in str(gs.backward(physics(net), {"net": net}, "config"))
    assert "apart from" not in str(
        gs.backward(
            physics(net),
            {"bias": [net[2].bias], "rest": [net[0].weight, net[0].bias, net[2].weight]},
            "config",
        )
    )


def test_a_record_says_nothing_of_heads_and_encoders_of_one_tensor():
    torch.manual_seed(0)
    trunk, a, b = nn.Linear(3, 4), nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
    z = trunk(torch.randn(5, 3))
    assert "apart from" not in str(
        gs.backward({"a": a(z).mean(), "b": b(z).pow(2).mean()}, None, "mgda")
    )
    model = TwoEncoders()
    assert "apart from" not in str(gs.backward(model.losses(), model, "mgda"))

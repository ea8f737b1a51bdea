"""Losses that are leaves, elements of a stack, or cannot start from their weight."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders, both
from tests.support.small import Small, x

pytestmark = pytest.mark.quick


def test_an_overflow_that_comes_with_the_combination():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    big = 2e38
    losses = {"a": big * p.sum() + q.sum(), "b": big * p.sum() - q[0]}
    surgery = gs.Surgery("pcgrad", {"p": [p], "q": [q]})
    record = surgery.backward(losses, scaler=torch.amp.GradScaler("cpu", init_scale=1.0))
    assert record.overflow
    assert torch.isinf(p.grad).all()
    assert torch.isinf(q.grad).all()
    assert surgery.state_dict()["step"] == 0


def test_elements_of_a_stack_reach_what_each_loss_reaches():
    model, other = Small(), Small()
    stacked = torch.stack(list(model.of(model.trunk(x())).values()))
    record = gs.backward({"a": stacked[0], "b": stacked[-1]}, model, "mgda")
    gs.backward(other.of(other.trunk(x())), other, "mgda")
    assert set(record) == {"a+b", "a", "b"}
    assert all(torch.allclose(a, b) for a, b in both(model, other))


def test_scores_that_name_nothing():
    model = TwoEncoders()
    with pytest.warns(UserWarning, match=r"none of 'x', 'y' is the modality of a group.*modality="):
        gs.backward(model.losses(), model, "ogm-ge", scores={"x": 2.0, "y": 1.0})
    parts = {"audio": model.audio, "visual": model.visual}
    with pytest.raises(gs.InputError, match=r"unknown modality 'audoi'. Did you mean 'audio'"):
        gs.Surgery("ogm-ge", parts).backward(model.losses(), scores={"audoi": 2.0, "visual": 1.0})


def test_what_belongs_to_the_step_and_a_graph_that_is_gone():
    model = Small()
    with pytest.raises(
        gs.InputError, match=r"weights belongs to the step: surgery.backward\(losses, weights=...\)"
    ):
        gs.Surgery("mgda", model, weights={"a": 1.0})
    with pytest.raises(gs.InputError, match="not its optimizer"):
        gs.Surgery("mgda", torch.optim.SGD(model.parameters()))
    losses = model.of(model.trunk(x()))
    gs.backward(losses, model, "mgda")
    with pytest.raises(gs.InputError, match="freed by an earlier backward pass"):
        gs.backward(losses, model, "mgda")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'mgda'"):
        gs.Surgery("MGDA", model)


@pytest.mark.parametrize("name", ["a", "z"])
def test_a_loss_that_is_a_leaf(name):
    p = nn.Parameter(torch.tensor(2.0))
    record = gs.backward({name: p, "b": (p - 5) ** 2}, [p], "upgrad")
    assert list(record) == [f"{min(name, 'b')}+{max(name, 'b')}"]
    assert float(p.grad) == pytest.approx(0.0)


@pytest.mark.parametrize("places", [(0, 1, 2), (-3, -2, -1), (0, -2, 2)])
def test_elements_of_a_stack_from_its_end(places):
    model = nn.ModuleList(nn.Linear(2, 1) for _ in range(3))
    stacked = torch.stack([layer(torch.ones(4, 2)).pow(2).mean() for layer in model])
    record = gs.backward(
        {n: stacked[i] for n, i in zip(("first", "middle", "last"), places, strict=True)},
        model,
        "mgda",
    )
    assert sorted(record) == ["first", "last", "middle"]
    assert all(layer.weight.grad is not None for layer in model)


@pytest.mark.parametrize("settings", [{"memory": "low"}, {"every": 2}])
def test_a_weight_that_a_loss_cannot_start_from(settings):
    layers = [nn.Parameter(1e-28 * torch.ones(3)) for _ in range(3)]
    surgery = gs.Surgery("fairgrad", layers, **settings)

    def losses():
        return {
            n: sum((p * 1e-30 * (i + 1) * torch.tensor([1.0, i, -i])).sum() for p in layers) * 1e-12
            for i, n in enumerate("abc")
        }

    if "every" in settings:  # the first step solves, and forms gradients
        surgery.backward(losses())
        for p in layers:
            p.grad = None
    with pytest.raises(gs.NonFiniteError, match="is beyond the range of its dtype"):
        surgery.backward(losses())
    assert all(p.grad is None for p in layers)

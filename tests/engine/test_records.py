"""Records: what was decided then stays, and two of them can be compared."""

import copy
import dataclasses
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.changing import Changing, description

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("settings", [{}, {"nonfinite": "ignore"}, {"every": 2}])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "scaled-sum", "uw"])
def test_a_record_keeps_no_tensor_of_the_model(strategy, settings):
    model = Changing()
    surgery = gs.Surgery(strategy, model, **settings)
    records = [surgery.backward(model.losses("abc", torch.randn(5, 3))) for _ in range(4)]
    held = [weakref.ref(p) for p in model.parameters()]
    del model, surgery
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)
    assert all(record["a"].objectives == ("a",) for record in records)


def test_what_a_record_says_was_decided_then():
    """Losses and groups are read later, from what they were."""
    model = Changing()
    for check in ("error", "ignore"):
        losses = model.losses("abc", torch.randn(5, 3))
        values = {name: loss.item() for name, loss in losses.items()}
        record = gs.Surgery("sum", model, nonfinite=check).backward(losses)
        with torch.no_grad():
            for loss in losses.values():
                loss.zero_()
        assert record.losses == pytest.approx(values)
        again = pickle.loads(pickle.dumps(record))
        assert again.losses == record.losses
        assert description(again) == description(copy.deepcopy(record)) == description(record)
        assert dataclasses.replace(record, step=3).losses == record.losses
        assert dataclasses.replace(record, step=3).step == 3
        assert dataclasses.asdict(record)["losses"] == record.losses
        assert [f.name for f in dataclasses.fields(record)] == [
            "strategy",
            "losses",
            "groups",
            "step",
            "overflow",
            "change",
            "method",
        ]
        assert repr(record).startswith("Record(strategy='sum', losses={'a': ")
        assert str(record).startswith("step 0: sum on a = ")


def test_records_are_equal_either_way():
    model = Changing()
    x = torch.randn(5, 3)
    one, two = (gs.Surgery("sum", model).backward(model.losses("a", x)) for _ in range(2))
    read = copy.copy(two)
    assert type(read) is gs.Record
    assert one == two == read == one
    assert one != gs.Surgery("sum", model).backward(model.losses("b", x))
    assert "a+b" not in one
    assert list(one) == list(one.groups)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.step = 1


def test_losses_that_are_read_late_keep_the_sign_of_zero():
    weight = nn.Parameter(torch.tensor([0.0, 1.0]))
    losses = {"a": -weight[0] * 0, "b": weight[1]}
    record = gs.Surgery("sum", nonfinite="ignore").backward(losses)
    assert str(record).startswith("step 0: sum on a = -0, b = 1")


def test_record_reads_well():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    record = gs.backward(
        {"up": weight.sum(), "down": -2 * weight.sum(), "still": 0 * weight.sum()},
        [weight],
        "pcgrad",
    )
    group = record["down+still+up"]
    assert group.objectives == ("up", "down", "still")
    assert group.conflicts == (("up", "down"),)
    assert group.cosines.tolist() == pytest.approx(np.array([[1, -1, 0], [-1, 1, 0], [0, 0, 1.0]]))
    assert group.stationary
    assert group.gram.tolist() == [[2.0, -4.0, 0.0], [-4.0, 8.0, 0.0], [0.0, 0.0, 0.0]]
    assert record.losses == {"up": 3.0, "down": -6.0, "still": 0.0}
    assert "conflicts up/down" in str(record)
    assert list(record) == ["down+still+up"]
    with pytest.raises(KeyError, match="the groups are"):
        record["nope"]
    gap = gs.backward(
        {"a": weight.sum(), "b": weight[0] ** 2, "c": weight[1] ** 2}, [weight], "mgda"
    )["a+b+c"]
    assert gap.gap <= 1e-10
    assert gap.converged
    assert not gap.stationary
    import pickle

    assert pickle.loads(pickle.dumps(record)).groups["down+still+up"].stationary


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("strategy", ["mgda", "mmpareto"])
def test_stationary_is_zero_and_recorded(dtype, strategy):
    torch.manual_seed(0)
    model = nn.Linear(50, 20).to(dtype)
    loss = model(torch.randn(8, 50).to(dtype)).float().pow(2).mean()
    record = gs.backward({"up": loss, "down": -0.25 * loss}, model, strategy)
    assert record["down+up"].stationary
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert not gs.backward(
        {"up": model(torch.ones(50).to(dtype)).sum(), "other": model.weight.pow(2).sum()},
        model,
        strategy,
    )["other+up"].stationary


def test_a_group_prints_its_line_and_gives_weights_by_name():
    model = Changing()
    losses = model.losses("abc", torch.randn(5, 3))
    for strategy in ("mgda", "mmpareto(rescale='tensor')", "graddrop"):
        record = gs.Surgery(strategy, model).backward(losses, retain_graph=True)
        group = record["a+b+c"]
        assert f"  {group}" in str(record).splitlines()
        if group.weights is None:
            assert group.named_weights() is None
            continue
        weights = group.weights if group.weights.ndim == 1 else group.weights.mean(0)
        assert group.named_weights() == dict(zip("abc", weights.tolist(), strict=True))
        assert str(group).startswith("a+b+c (")
    inspected = gs.inspect(losses)["a+b+c"]
    assert str(inspected).startswith(f"a+b+c ({inspected.parameters} tensors): least cosine ")
    assert "GroupRecord(name='a+b+c'" in repr(inspected)


def test_heads_that_explicit_groups_leave_over_print_no_cosine():
    """They share no parameter, so that their cosine of zero says nothing."""
    trunk, *heads = (nn.Parameter(torch.ones(2)) for _ in range(3))
    first, second = (trunk * head for head in heads)
    losses = {"a": first.sum(), "b": second.pow(2).sum()}
    record = gs.Surgery("mgda(normalize='l2')", {"trunk": [trunk]}).backward(losses)
    assert record["others"].gram.tolist() == [[2.0, 0.0], [0.0, 8.0]]
    assert str(record["others"]) == "others (2 tensors, plain): a 1, b 1"
    assert "mean cosine" in str(record["trunk"])
    second_trunk = nn.Parameter(torch.ones(2))
    losses = {"a": (trunk + second_trunk).sum(), "b": -second_trunk.sum() + trunk.sum()}
    record = gs.Surgery("mgda", {"trunk": [trunk]}).backward(losses)
    assert str(record["others"]).endswith("a 1, b 1; mean cosine -1, conflicts a/b")

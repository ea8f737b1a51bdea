"""accumulate and combine: micro-batches equal their sum."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import Tree, TwoEncoders, both, grads, same
from tests.support.shared_trunk import F64

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw", "graddrop", "moco", "mmpareto"])
def test_micro_batches_equal_their_sum(strategy):
    model, large = TwoEncoders(), TwoEncoders()
    surgery, plainly = gs.Surgery(strategy, model), gs.Surgery(strategy, large)
    for step in range(3):
        model.zero_grad()
        large.zero_grad()
        for part in range(4):
            surgery.accumulate(model.losses(10 * step + part))
            assert all(p.grad is None for p in model.parameters())
        record = surgery.combine()
        parts = [large.losses(10 * step + part) for part in range(4)]
        wanted = plainly.backward({name: sum(part[name] for part in parts) for name in parts[0]})
        assert record.step == step
        assert all(record.losses[n] == pytest.approx(wanted.losses[n]) for n in wanted.losses)
        for a, b in both(model, large):
            assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_losses_may_be_missing_from_some_micro_batches():
    model, large = Tree(), Tree()
    surgery = gs.Surgery("mgda", model)
    for part, names in enumerate(("ab", "bcd", "a")):
        losses = model.losses(part)
        surgery.accumulate({n: losses[n] for n in names})
    record = surgery.combine()
    parts = [large.losses(part) for part in range(3)]
    sums = {
        n: sum(parts[i][n] for i, names in enumerate(("ab", "bcd", "a")) if n in names)
        for n in "abcd"
    }
    gs.backward(sums, large, "mgda")
    assert all(torch.allclose(a, b, rtol=1e-8) for a, b in both(model, large))
    assert record.objectives == ("a", "b", "c", "d")


def test_what_accumulate_and_combine_refuse_leaves_everything():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model)
    with pytest.raises(gs.InputError, match="nothing was gathered"):
        surgery.combine()
    surgery.accumulate(model.losses(0), weights={"fused": 1.0, "audio": 2.0, "visual": 1.0})
    with pytest.raises(gs.InputError, match="weight of loss 'audio' was 2.0 and is 1.0"):
        surgery.accumulate(model.losses(1))
    with pytest.raises(gs.InputError, match="the scaler for all micro-batches"):
        surgery.accumulate(
            model.losses(1),
            weights={"fused": 1.0, "audio": 2.0, "visual": 1.0},
            scaler=torch.amp.GradScaler("cpu"),
        )
    bad = model.losses(1)
    bad["visual"] = bad["visual"] * math.nan
    with pytest.raises(gs.NonFiniteError, match=r"loss 'visual' is nan. Nothing was added"):
        surgery.accumulate(bad)
    with pytest.raises(gs.InputError, match="combine"):
        surgery.backward(model.losses(1))
    with pytest.warns(UserWarning, match="not saved"):
        surgery.state_dict()
    surgery.combine()
    other = TwoEncoders()
    gs.Surgery("mgda", other).backward(
        other.losses(0), weights={"fused": 1.0, "audio": 2.0, "visual": 1.0}
    )
    assert same(grads(model), grads(other))
    surgery.accumulate(model.losses(1))
    surgery.discard()
    surgery.backward(model.losses(1))


def test_a_combine_that_fails_can_be_called_again():
    model = TwoEncoders()
    surgery = gs.Surgery(
        "ogm-ge(modality={'audio+fused': 'audio', 'fused+visual': 'visual'})", model
    )
    surgery.accumulate(model.losses(0))
    with pytest.raises(gs.GradSurgeryError, match="scores"):
        surgery.combine()
    assert all(p.grad is None for p in model.parameters())
    surgery.combine(scores={"audio": 2.0, "visual": 1.0})
    assert model.audio[0].weight.grad is not None


def test_gathered_gradients_hold_no_graph_and_share_no_memory():
    weight = nn.Parameter(torch.ones(3, dtype=F64))
    surgery = gs.Surgery("sum", [weight])
    shared = torch.ones(3, dtype=F64)

    class Given(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            return w.sum()

        @staticmethod
        def backward(ctx, gradient):
            return shared  # a tensor that somebody keeps

    for _ in range(2):
        loss = Given.apply(weight)
        watched = weakref.ref(loss)
        surgery.accumulate([loss])
        del loss
        gc.collect()
        assert watched() is None
        assert not any(kept.requires_grad for kept in surgery._gathered.losses.tensors)
    surgery.combine()
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    assert shared.tolist() == [1.0, 1.0, 1.0]


class Marked(torch.autograd.Function):
    """The identity, whose node in the graph can be watched."""

    @staticmethod
    def forward(ctx, x, nodes):
        ctx.mark = torch.nn.Module()  # anything that a weak reference can point to
        nodes.append(weakref.ref(ctx.mark))
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def test_the_sum_of_the_losses_holds_no_graph():
    weight, nodes = nn.Parameter(torch.ones(3, dtype=F64)), []
    surgery = gs.Surgery("sum", [weight])
    for k in range(1, 4):
        surgery.accumulate([Marked.apply(weight.sum() * k, nodes)])
        gc.collect()
        assert [node() for node in nodes] == [None] * k
    assert surgery.combine().losses == {"0": 18.0}

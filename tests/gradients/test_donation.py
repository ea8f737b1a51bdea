"""A direction is formed in the memory of a gradient only where no other tensor has that memory."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.gradients import donation
from gradsurgery.gradients.donation import ALONE, COUNTS, owned
from gradsurgery.gradients.matrix import Objectives
from tests.support.models import TwoEncoders

pytestmark = pytest.mark.quick

KEPT = []


class Keeps(torch.autograd.Function):
    """Gives a gradient that somebody else goes on using, in one way or another."""

    @staticmethod
    def forward(ctx, x, kept, how):
        ctx.how = how
        ctx.save_for_backward(kept)
        return (x * kept).sum()

    @staticmethod
    def backward(ctx, gradient):
        (kept,) = ctx.saved_tensors
        if ctx.how == "saved":
            found = kept
        elif ctx.how == "in a list":
            found = gradient * kept
            KEPT.append((found, found.clone()))
        elif ctx.how == "a view in a list":
            found = gradient * kept
            KEPT.append((found.view(-1), found.clone().view(-1)))
        elif ctx.how == "a part of more":
            more = torch.cat([gradient * kept, torch.full_like(kept, 7.0)])
            KEPT.append((more, more.clone()))
            found = more[: len(kept)]
        elif ctx.how == "transposed":
            found = (gradient * kept).reshape(len(kept), -1).T.contiguous().T.reshape(kept.shape)
        else:
            found = gradient * kept
        return found, None, None


@pytest.mark.parametrize(
    "how", ["saved", "in a list", "a view in a list", "a part of more", "transposed", "plain"]
)
@pytest.mark.parametrize("shape", [(3,), (4, 2)])
def test_what_others_hold_stays_as_it_is(how, shape):
    torch.manual_seed(0)
    KEPT.clear()
    x = nn.Parameter(torch.randn(shape))
    kept = [torch.randn(shape) for _ in range(3)]
    before = [k.clone() for k in kept]
    losses = [Keeps.apply(x, k, how) for k in kept]
    del kept[0]  # this one only the graph has
    surgery = gs.Surgery("mgda", [x])
    for _ in range(3):
        x.grad = None
        weights = surgery.backward(losses, retain_graph=True)["0+1+2"].weights
        torch.testing.assert_close(
            x.grad, sum(float(w) * b for w, b in zip(weights, before, strict=True))
        )
    assert all(torch.equal(a, b) for a, b in zip(kept, before[1:], strict=True))
    assert all(torch.equal(now, then) for now, then in KEPT)
    assert bool(KEPT) == (how in ("in a list", "a view in a list", "a part of more"))


def test_one_gradient_for_two_parameters():
    for make in (
        lambda p, q: (p + q).pow(2).sum(),
        lambda p, q: torch.stack([p, q]).pow(2).sum(),
        lambda p, q: (p - q).sum(),
    ):
        p, q = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0, -4.0]))
        losses = [make(p, q), (p * q).sum(), make(q, p) * 0.5]
        expected = [torch.autograd.grad(loss, [p, q], retain_graph=True) for loss in losses]
        record = gs.backward(losses, [p, q], "upgrad")
        weights = record["0+1+2"].weights
        for i, parameter in enumerate((p, q)):
            torch.testing.assert_close(
                parameter.grad, sum(float(w) * e[i] for w, e in zip(weights, expected, strict=True))
            )
        assert p.grad.data_ptr() != q.grad.data_ptr()


@pytest.mark.skipif(not COUNTS, reason="this torch does not tell how many hold a tensor")
def test_a_step_needs_no_memory_for_its_directions():
    """Otherwise the tests above would hold for one that always copies."""
    model = TwoEncoders(dtype=torch.float32)
    places = set()
    for p in model.parameters():
        if p.requires_grad:
            p.register_hook(lambda gradient: places.add(gradient.data_ptr()))
    gs.Surgery("upgrad", model, method="gradients").backward(model.losses())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert not any(g._is_view() for g in grads)
    assert all(g.data_ptr() in places for g in grads)
    assert len({g.data_ptr() for g in grads}) == len(grads)


def test_without_the_counters_nothing_is_written_to(monkeypatch):
    found = []
    for numbers in (donation.ALONE, set()):
        monkeypatch.setattr(donation, "ALONE", numbers)
        model = TwoEncoders(dtype=torch.float32)
        gs.backward(model.losses(), model, "upgrad", method="gradients")
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert owned([torch.ones(3)], [torch.ones(3)]) == [None]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], gradient) for name, gradient in found[1].items())


@pytest.mark.skipif(not COUNTS, reason="this torch does not tell how many hold a tensor")
def test_owned():
    assert len(ALONE) == 2
    like = torch.zeros(4, 3)
    held = [torch.ones(4, 3)]
    assert owned(held, [like])[0] is held[0]
    assert owned([None], [like])[0] is None
    another = held[0]
    assert owned(held, [like])[0] is None
    del another
    view = held[0].view(-1)
    assert owned(held, [like])[0] is None
    del view
    assert owned(held, [like])[0] is held[0]
    assert owned(held, [like.double()])[0] is None
    assert owned(held, [torch.zeros(3, 4).T])[0] is None
    assert owned([torch.ones(8, 3)[:4]], [like])[0] is None
    assert owned([torch.ones(1, 1).expand(4, 3)], [like])[0] is None
    base = torch.ones(3, 4)
    held = [base.T]
    transposed = torch.zeros(3, 4).T
    assert owned(held, [transposed])[0] is None
    other = base.view(-1)
    del base
    assert owned(held, [transposed])[0] is None
    del other
    (found,) = owned(held, [transposed])
    assert found is not None
    assert not found._is_view()
    assert found.data_ptr() == held[0].data_ptr()


@pytest.mark.skipif(not COUNTS, reason="this torch does not tell how many hold a tensor")
def test_the_memory_of_a_cuda_graph_is_its_own():
    held, viewed = [torch.ones(4, 3)], [torch.ones(3, 4).T]
    bases = [held[0], viewed[0]._base]
    torch._C._set_cached_tensors_enabled(True)
    try:
        for base in bases:
            torch._C._add_cached_tensor(base)
        assert torch._C._is_cached_tensor(held[0])
        del base
        bases.clear()
        assert owned(held, [torch.zeros(4, 3)])[0] is None
        assert owned(viewed, [torch.zeros(3, 4).T])[0] is None
    finally:
        torch._C._remove_cached_tensor(held[0])
        torch._C._remove_cached_tensor(viewed[0]._base)
        torch._C._set_cached_tensors_enabled(False)
    assert owned(held, [torch.zeros(4, 3)])[0] is held[0]


@pytest.mark.parametrize("weights", [[1.0, 0.5], [0.0, 2.0], [0.0, 0.0], [-3.0, 0.0]])
def test_combinations_are_the_same_either_way(weights):
    torch.manual_seed(1)
    for dtype in (torch.float16, torch.float32, torch.float64):
        sizes = [(3,), (300, 200), (5, 2), ()]
        rows = [[torch.randn(size).to(dtype) for size in sizes] for _ in range(2)]
        rows[1][2] = None
        like = [torch.zeros(size, dtype=dtype) for size in sizes]
        expected = Objectives(rows, like).combine(np.array(weights))
        copies = [[None if g is None else g.clone() for g in row] for row in rows]
        own = Objectives(copies, like, writable=copies[0])
        found = own.combine(np.array(weights), reuse=True)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        assert [block.gradients for block in own.blocks] == [[None] * 2] * 4
        # the large tensor's direction lies where its first gradient was, unless it is all zero
        there = dtype != torch.float16 and any(weights)
        assert (found[1].data_ptr() == copies[0][1].data_ptr()) == there

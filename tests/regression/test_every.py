"""Replayed weights beside protection, gathered steps and losses that change."""

import torch
from torch import nn

import gradsurgery as gs
from tests.support.small import F64


class TwoOut(torch.autograd.Function):
    """p² and q³; an output that no loss uses gives None, which the graph does not show."""

    @staticmethod
    def forward(ctx, p, q):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(p, q)
        return p**2, q**3

    @staticmethod
    def backward(ctx, g, h):
        p, q = ctx.saved_tensors
        return None if g is None else 2 * p * g, None if h is None else 3 * q**2 * h


def test_every_where_the_graph_shows_more_than_the_gradients():
    shared, p, q = (nn.Parameter(torch.tensor([1.0, 2.0], dtype=F64)) for _ in range(3))
    surgery = gs.Surgery("mgda", [shared, p, q], every=2)
    for _ in range(4):
        for t in (shared, p, q):
            t.grad = None
        first, second = TwoOut.apply(p, q)
        losses = {"a": first.sum() + shared.sum(), "b": second.sum() - 2 * shared[0]}
        record = surgery.backward(losses)
        assert set(record) == {"a+b", "a", "b"}
        assert p.grad.tolist() == [2.0, 4.0]
        assert q.grad.tolist() == [3.0, 12.0]


def test_protect_in_steps_that_replay_weights_of_losses():
    for strategy in ("sum", "mean", "uw"):
        p = nn.Parameter(torch.zeros(2, dtype=F64))
        surgery = gs.Surgery(strategy, [p], protect="a", every=2)
        for _ in range(4):
            p.grad = None
            surgery.backward(
                {
                    "a": p @ torch.tensor([1.0, 0.0], dtype=F64),
                    "b": p @ torch.tensor([-3.0, 1.0], dtype=F64),
                }
            )
            assert p.grad[0] >= -1e-12
            assert p.grad[1] > 0


def test_combine_with_every_solves_all_groups_when_it_solves_one():
    p, q = nn.Parameter(torch.ones(3, dtype=F64)), nn.Parameter(torch.ones(3, dtype=F64))
    surgery = gs.Surgery("mgda", [p, q], every=2)
    replayed = []
    for step in range(6):
        losses = {"a": p.pow(2).sum(), "b": -p[0], "c": q.sum(), "d": -q[1]}
        if step % 2:
            losses["e"] = q[2] * 3
        surgery.accumulate(losses)
        record = surgery.combine()
        replayed.append(record["a+b"].replayed)
    assert not any(replayed)


def test_combine_with_every_and_losses_that_change():
    p = nn.Parameter(torch.ones(3, dtype=F64))
    surgery = gs.Surgery("dwa", [p], every=3)
    replayed = []
    for names in ("ab", "abc", "abc", "abc", "abc"):
        surgery.accumulate({n: (p * (i + 1)).pow(2).sum() for i, n in enumerate(names)})
        record = surgery.combine()
        replayed.append(next(iter(record.groups.values())).replayed)
    assert replayed == [False, False, True, True, False]

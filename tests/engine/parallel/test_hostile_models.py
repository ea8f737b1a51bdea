"""Models of every kind on ranks are as one process on the joined batch, and ranks are alike."""

import contextlib

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from tests.support.hostile import WORLD, Fresh, compared
from tests.support.joined import numbers
from tests.support.ranks import on_ranks

STRATEGIES = ("mgda", "sum", "graddrop")
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore"),
]


class Odd(nn.Module):
    """A scalar, single numbers, nothing, complex ones, one that no loss takes, and a transpose."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scalar, self.one = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor([0.5]))
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.waves = nn.Parameter(torch.randn(5, dtype=torch.complex64))
        self.wave = nn.Parameter(torch.randn(1, dtype=torch.complex64))
        self.unused = nn.Parameter(torch.randn(3))
        self.other_way = nn.Parameter(torch.randn(4, 5).t())

    def losses(self, step, rows, forward=None):
        x = numbers(step, 5, dtype=torch.float32)[0][rows]
        both = (self.wave * self.waves).abs().sum()
        first = ((x * self.waves).sum(1).abs() ** 2).mean() * self.scalar + self.none.sum()
        second = ((x * self.one).pow(2).sum(1) * both).mean() + self.scalar**2
        return {"a": first, "b": second, "c": (x @ self.other_way).pow(2).mean()}


def odd_parameters(strategy):
    def use(run):
        run.model = Odd()
        surgery = run.make(strategy)
        for step in range(2):
            surgery.backward(run.losses(step))
        return run.model.unused.grad is None

    return use


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, parameter):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def reached_on_one_rank_without_a_gradient(strategy):
    def use(run):
        run.model.more = nn.Parameter(torch.ones(3))
        losses, surgery = run.losses(), run.make(strategy)
        if run.alone or run.rank == 0:
            losses["a"] = NoGradient.apply(losses["a"], run.model.more)
        surgery.backward(losses)
        surgery.backward(run.losses(1))
        return run.model.more.grad is None

    return use


def a_branch_on_one_rank(run):
    torch.manual_seed(7)
    run.model.more = nn.Linear(5, 1)
    losses = run.losses()
    more = run.model.more(run.model.trunk(torch.ones(2, 4))).mean()
    if run.alone or run.bad:
        losses["a"] = losses["a"] + more / (WORLD if run.alone else 1)
    run.make().backward(losses)


def hooks(run):
    """Those of gradients are called per pass, those after accumulation once."""
    count = {"gradient": 0, "accumulated": 0}

    def called(what):
        count[what] += 1

    weight = run.model.trunk[0].weight
    weight.register_hook(lambda gradient: called("gradient"))
    weight.register_post_accumulate_grad_hook(lambda parameter: called("accumulated"))
    run.make().backward(run.losses())
    return count


class Mean(torch.autograd.Function):
    """The mean over ranks, in both passes, as in synchronised batch normalisation."""

    @staticmethod
    def forward(ctx, x, alone):
        ctx.alone = alone
        return mean(x, alone)

    @staticmethod
    def backward(ctx, gradient):
        return mean(gradient, ctx.alone), None


def mean(x, alone):
    x = x.clone()
    if not alone:
        dist.all_reduce(x)
        x /= WORLD
    return x


def collectives_in_the_model(strategy):
    def use(run):
        x, y = numbers(0, 4, 3, dtype=torch.float32)
        z = run.model.trunk(x[run.rows])
        z = z - Mean.apply(z.mean(0), run.alone)
        out = {name: head(z)[:, 0] for name, head in run.model.heads.items()}
        losses = {n: (out[n] - y[run.rows, i]).pow(2).mean() for i, n in enumerate(out)}
        run.make(strategy).backward(dict(reversed(losses.items())) if run.rank == 2 else losses)

    return use


def under_ddp_later(run):
    """The Surgery is made first; plain passes between steps are DDP's own."""
    surgery = run.make()
    view = {"gradient_as_bucket_view": True}
    wrapped = run.model if run.alone else DistributedDataParallel(run.model, **view)
    for step in range(4):
        losses = run.model.losses(step, run.rows, wrapped)
        if step % 2:
            sum(losses.values()).backward()
        else:
            surgery.backward(losses)


MODELS = [odd_parameters(name) for name in (*STRATEGIES, "pcgrad")]
MODELS += [reached_on_one_rank_without_a_gradient(name) for name in STRATEGIES]
MODELS += [collectives_in_the_model(name) for name in STRATEGIES]
MODELS += [a_branch_on_one_rank, hooks, under_ddp_later]


def test_models_of_every_kind():
    compared(MODELS)


def later_with_a_static_graph(rank):
    """The error of a first step, and whether DDP's own synchronisation goes on after it."""
    run = Fresh(rank)
    surgery = run.make()
    wrapped = DistributedDataParallel(run.model, static_graph=True)
    with contextlib.suppress(gs.InputError):
        surgery.backward(run.model.losses(0, run.rows, wrapped))
        return None
    sum(run.model.losses(1, run.rows, wrapped).values()).backward()
    return run.found()


def test_a_static_graph_is_refused_before_a_pass_goes_through_it():
    first, *others = on_ranks(WORLD, later_with_a_static_graph)
    assert first is not None
    assert all(torch.equal(first, other) for other in others)

"""fully_shard: an error on one rank is one on all, nothing is lost, and training goes on right."""

import re

import pytest
import torch

import gradsurgery as gs
from tests.engine.parallel.test_fsdp2 import own, sharded
from tests.support.ranks import on_ranks, said
from tests.support.sharded import STEPS, Model, alone, batch, check, compared

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]


class Spoiled(torch.autograd.Function):
    """Gives its input, and in backward what was asked for in its place."""

    @staticmethod
    def forward(ctx, x, fault):
        ctx.fault = fault
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.fault == "raise":
            raise ValueError("no backward today")
        return torch.full_like(gradient, float("nan")), None


def spoiled(fault):
    def losses(model, x):
        z = torch.tanh(model.first(x))
        h = torch.tanh(model.second(Spoiled.apply(z, fault)))
        found = model(x)
        return {**found, "b": (model.b(h) + x[:, 1:3]).pow(2).mean()}

    return losses


def scaled_loss(factor, only=None):
    def losses(model, x):
        here = only is None or torch.distributed.get_rank() == only
        return model(x, factor if here else 1.0)

    return losses


def on_rank(rank, change):
    def losses(model, x):
        found = model(x)
        return change(found) if torch.distributed.get_rank() == rank else found

    return losses


class Net(Model):
    """Which computes its losses within its own forward pass, as fully_shard wants it."""

    losses = None

    def forward(self, x, *scale):
        if self.losses is None or scale:
            return super().forward(x, *scale)
        ask, self.losses = self.losses, None
        return ask(self, x)


FAULTS = {
    "a loss is NaN on rank 1": scaled_loss(float("nan"), only=1),
    "a gradient is NaN": spoiled("nan"),
    "backward raises": spoiled("raise"),
    "a loss is missing on rank 1": on_rank(1, lambda found: {n: found[n] for n in "ac"}),
    "no loss on rank 1": on_rank(1, lambda found: {}),
    "a loss without graph on rank 1": on_rank(1, lambda found: {**found, "a": torch.ones(())}),
    "another name on rank 1": on_rank(1, lambda found: dict(zip("abd", found.values()))),  # noqa: B905
    "another reach on rank 1": on_rank(1, lambda found: {**found, "c": found["c"] + found["a"]}),
}


def faulty(rank, fault, settings):
    """A step that fails between the second and the third, which adds to what `.grad` has."""
    model = sharded(Net(), "trunk")
    surgery = gs.Surgery("mgda", model, **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    groups = [group for state in fsdp_groups(model) for group in state]
    for k in range(STEPS):
        x = own(rank, 2)(batch(k))
        if k == 2:
            before = [(p.grad, p.grad.full_tensor().clone()) for p in model.parameters()]
            model.losses = FAULTS[fault]
            told = said(lambda: surgery.backward(model(x)))  # noqa: B023
            for parameter, (grad, value) in zip(model.parameters(), before, strict=True):
                assert parameter.grad is grad
                assert torch.equal(grad.full_tensor(), value)
            assert repr(surgery).endswith("step=2)")
            assert all(group.reshard_after_backward for group in groups)
            optimizer.zero_grad()
            model(x)["b"].backward()
            plain = [p.grad.full_tensor().clone() for p in (model.first.weight, model.b.weight)]
        optimizer.zero_grad()
        record = surgery.backward(model(x))
        optimizer.step()
    return told, plain, compared(model, record, alone("mgda"))


def fsdp_groups(model):
    from torch.distributed.fsdp import FSDPModule

    return [
        part._get_fsdp_state()._fsdp_param_groups
        for part in model.modules()
        if isinstance(part, FSDPModule)
    ]


def plain_gradients(expected_steps):
    """What `loss.backward()` gives on the joined batch after two steps."""
    model = Model()
    surgery = gs.Surgery("mgda", model, process_group=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for k in range(expected_steps):
        optimizer.zero_grad()
        surgery.backward(model(batch(k)))
        optimizer.step()
    optimizer.zero_grad()
    model(batch(expected_steps))["b"].backward()
    return [p.grad.clone() for p in (model.first.weight, model.b.weight)]


def work(rank):
    wanted = plain_gradients(2)
    found = {}
    for fault in FAULTS:
        for settings in ({}, {"memory": "high"}):
            told, plain, result = faulty(rank, fault, settings)
            for mine, theirs in zip(plain, wanted, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
            found[fault, settings.get("memory")] = told, result
    return found


SAID = {
    "a loss is NaN on rank 1": ("NonFiniteError", r"rank 1: loss 'a' is nan"),
    "a gradient is NaN": ("NonFiniteError", r"objective 'b' in group 'a\+b\+c'"),
    "backward raises": ("ValueError", "no backward today"),
    "a loss is missing on rank 1": ("InputError", "differ in their losses"),
    "no loss on rank 1": ("InputError", "differ in"),
    "a loss without graph on rank 1": ("InputError", "'a'.*require"),
    "another name on rank 1": ("InputError", "differ in their losses"),
    "another reach on rank 1": ("InputError", r"the losses that reach parameter 'second.weight'"),
}


@pytest.fixture(scope="module")
def failed():
    return on_ranks(2, work, limit=90)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("memory", [None, "high"])
def test_a_fault_is_one_error_on_all_ranks_and_training_goes_on(failed, fault, memory):
    kind, text = SAID[fault]
    for found in failed:
        (name, message), _ = found[fault, memory]
        assert name == kind
        assert re.search(text, message, re.DOTALL), message
    check([found[fault, memory][1] for found in failed])

"""Weights decided on a part of each group over ranks: as one process does on the joined batch."""

import re

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from tests.engine.parallel.test_parts import ROWS, compared
from tests.engine.parallel.test_traffic import SLACK, Wide
from tests.support.joined import Encoders, Tasks
from tests.support.ranks import launch, on_ranks
from tests.support.traffic import Traffic

pytestmark = pytest.mark.filterwarnings("ignore")


def steps(run, strategy, losses=None, kind=Tasks, ddp=False, on="trunk.2.weight", **settings):
    """Three steps, and what the records say of them."""
    model = kind()
    used = DistributedDataParallel(model) if ddp and not run.alone else model
    settings["decide_on"] = [model.get_parameter(on)]
    surgery = gs.Surgery(strategy, used, process_group=run.group, **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen = []
    for step in range(3):
        optimizer.zero_grad()
        forward = used if ddp else None
        given = losses(run, model, step) if losses else model.losses(step, run.rows, forward)
        record = surgery.step(given, optimizer, count=run.count)
        assert record.change is None
        solved = [group for group in record.values() if len(group.objectives) > 1]
        seen.append([(group.weights.tolist(), group.replayed) for group in solved])
    return run.found(model, seen)


def uneven(run):
    return steps(run, "upgrad")


def one_encoder(run):
    """The other is solved on all of its gradients."""
    return steps(run, "mgda", kind=Encoders, on="audio.0.bias")


def used_again(run):
    return steps(run, "nash-mtl", every=2, length="sum", protect="a")


def tapped(run):
    return steps(run, "mgda", method="taps")


def measured(run):
    return steps(run, "cagrad", measure=1, every=3)


def wrapped(run):
    return steps(run, "mgda", ddp=True)


def missing(run):
    """Loss c is of the first rank alone, and the last rank has no example at all."""

    def losses(run, model, step):
        if run.alone:
            return {**model.losses(step, ROWS[0] + ROWS[1]), "c": model.losses(step, ROWS[0])["c"]}
        given = {} if run.rank == 2 else model.losses(step, run.rows)
        return {n: loss for n, loss in reversed(given.items()) if n != "c" or run.rank == 0}

    return steps(run, "upgrad", losses)


@pytest.mark.exhaustive
def test_it_is_as_on_the_joined_batch():
    compared([uneven, one_encoder, used_again, tapped, measured, wrapped, missing])


def sent(rank, n, method):
    model = Wide(n)
    own = gs.Surgery(
        "mgda", model, process_group=dist.group.WORLD, method=method, decide_on=model.trunk[-1]
    )
    _, losses = model.losses()
    with Traffic() as traffic:
        own.backward(losses)
    size = sum(p.numel() for p in model.parameters())
    part = sum(p.numel() for p in model.trunk[-1].parameters()) / size
    return traffic.halves(size), part


@pytest.mark.exhaustive
def test_of_what_does_not_decide_one_gradient_is_sent():
    n = 8
    (halves, part), _ = on_ranks(2, sent, n, "gradients")
    assert halves <= SLACK * (n * part + (1 - part) + 1)
    tapped, _ = on_ranks(2, sent, n, "taps")[0]
    assert tapped < halves - part / 2


def refused(rank, case):
    model = Tasks()
    part = model.trunk[2 * rank if case == "another part" else 2]
    if case == "of one objective":
        part = model.heads["a"]
    given = {"all": model} if case == "of one objective" else model
    surgery = gs.Surgery("mgda", given, process_group=dist.group.WORLD, decide_on=part)
    losses = model.losses(0, ROWS[rank])
    if case == "not finite" and rank == 1:
        model.trunk[0].weight.register_hook(lambda g: g * torch.nan)
    try:
        surgery.backward(losses)
    finally:
        assert all(p.grad is None for p in model.parameters())


REFUSED = {
    "another part": ("InputError", "the ranks differ in decide_on=: rank 0 has .*trunk.0.*trunk.2"),
    "of one objective": ("InputError", "objective 'b' reaches group 'all', but none"),
    "not finite": ("NonFiniteError", "rank 1: .*has NaN or inf"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_those_of_all_ranks(case):
    kind, text = REFUSED[case]
    for end in launch(2, refused, case):
        assert end.error == kind
        assert re.search(text, end.said), end.said

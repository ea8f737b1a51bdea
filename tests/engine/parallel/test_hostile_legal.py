"""What may differ between ranks gives what one process does on the joined batch."""

import pytest
import torch

from tests.support.hostile import ALL, WORLD, Run
from tests.support.ranks import on_ranks

pytestmark = pytest.mark.exhaustive


def other_order(run):
    losses = run.losses()
    return run.surgery.backward(run.either(losses, dict(reversed(losses.items()))))


def other_names(run):
    """Each rank has losses of its own: two are of all rows, and one of each is of some."""
    losses = run.losses()
    if run.alone:
        mine = {"a": [r for r in ALL if r % 3 != 1], "z": [r for r in ALL if r % 3 == 1]}
        return run.surgery.backward({**losses, **{n: loss_of(run, r) for n, r in mine.items()}})
    own = losses.pop("a")
    return run.surgery.backward({run.either("a", "z"): own, **losses})


def loss_of(run, rows):
    return run.model.losses(0, rows)["a"]


def other_reach(run):
    """A loss that on one rank is of a head alone."""
    losses = run.losses()
    if run.alone:
        rest = [r for r in ALL if r % 3 != 1]
        losses["a"] = loss_of(run, rest) * 2 / 3 + head_alone(run) / 3
    elif run.bad:
        losses["a"] = head_alone(run)
    return run.surgery.backward(losses)


def head_alone(run):
    return run.model.heads["a"](torch.ones(1, 5)).sum()


def other_reach_in_groups(run):
    run.surgery = run.make(parameters={"trunk": run.model.trunk, "heads": run.model.heads})
    return other_reach(run)


def another_dtype_of_losses(run):
    losses = run.losses()
    return run.surgery.backward({n: x.double() if run.bad else x for n, x in losses.items()})


def another_method(run):
    surgery = run.make(method=run.either("auto", "batched"))
    return surgery.backward(run.losses())


def counts_by_name_on_one(run):
    """Four examples on each, said in two ways."""
    count = {"a": 4, "b": 4, "c": 4}
    return run.surgery.backward(run.losses(), count=run.either(4, count))


def option_names_a_loss_elsewhere(run):
    """One rank has no loss by the protected name, but one that is near."""
    losses = {f"task_{name}": loss for name, loss in run.losses().items()}
    if run.alone:
        losses["task_a"] = loss_of(run, [r for r in ALL if r % 3 != 1])
    elif run.bad:
        del losses["task_a"]
    return run.make(protect="task_a").backward(losses)


def loads_its_own_state(run):
    """One rank loads what all have; and all forget a loss."""
    surgery = run.make("moco")
    surgery.backward(run.losses())
    if run.bad:
        surgery.load_state_dict(surgery.state_dict())
    surgery.backward(run.losses(1))
    surgery.forget("a")
    losses = run.losses(2)
    del losses["a"]
    run.model.zero_grad()
    surgery.backward(losses)
    losses = run.losses(3)
    return run.surgery.backward(losses)


LEGAL = [other_order, other_names, other_reach, other_reach_in_groups, another_dtype_of_losses]
LEGAL += [loads_its_own_state, another_method, counts_by_name_on_one, option_names_a_loss_elsewhere]


def legal_on(rank, cases):
    return [first_step(case, rank) for case in cases]


def first_step(case, rank=None):
    run = Run(rank)
    run.model.zero_grad()
    record = case(run)
    said = {name: (g.objectives, g.weights.tolist()) for name, g in record.items()}
    return torch.cat([p.grad.reshape(-1) for p in run.model.parameters()]), said, record.losses


def test_what_may_differ_is_as_one_process_on_the_joined_batch():
    ranks = on_ranks(WORLD, legal_on, LEGAL, limit=60, timeout=10)
    for i, case in enumerate(LEGAL):
        grads, groups, losses = first_step(case)
        for own in ranks:
            assert torch.equal(own[i][0], ranks[0][i][0]), case
            assert own[i][1:] == ranks[0][i][1:], case
            torch.testing.assert_close(own[i][0], grads, rtol=1e-5, atol=1e-6)
            assert {n: set(g) for n, (g, _) in own[i][1].items()} == {
                n: set(g) for n, (g, _) in groups.items()
            }
            assert own[i][2] == pytest.approx(losses, rel=1e-5)

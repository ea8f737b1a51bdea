"""Tasks that ship, and a skip with the reason where their data are not installed."""

import functools

import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare.loop import Loop, endless, seeded
from gradsurgery.tasks import get_task, task_names

SHIPPED = [n for n in task_names() if get_task(n).load.__module__.startswith("gradsurgery.")]


@functools.cache
def _loaded(name, seed):
    try:
        return get_task(name).problem(None, seed)
    except gs.MissingExtraError as error:
        return str(error)


def loaded(name, seed=0):
    """A task's problem of a seed, made once: some data take seconds to read."""
    found = _loaded(name, seed)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def batch_of(problem):
    """The first batch of a problem."""
    return next(iter(problem.batches()))


def learned(name, steps):
    """The validation figures after a few steps of the plain sum at the task's own rate."""
    problem = loaded(name)
    with seeded(0):
        loop = Loop(
            problem, gs.get_strategy("sum"), seed=0, lr=get_task(name).lr, steps=problem.steps
        )
        draw = endless(problem)
        for _ in range(steps):
            loop.step(draw)
    loop.model.eval()
    with torch.no_grad():
        return problem.evaluate(loop.model, "validation")


def rows(tensor):
    """The rows of a tensor as things that can be in a set."""
    return {row.numpy().tobytes() for row in tensor}


def apart(data, place=0):
    """Hold that no row of one split is in another; `place` is that of the tensor."""
    train, validation, test = (
        rows(part[place]) for part in (data.train, data.validation, data.test)
    )
    assert not train & validation
    assert not (train | validation) & test

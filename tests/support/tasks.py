"""Tasks that ship, and a skip with the reason where their data are not installed."""

import functools

import pytest

import gradsurgery as gs
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

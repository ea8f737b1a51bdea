"""A failure at each collective, a rank that dies there or stays away: the others end, unchanged."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
import torch.distributed as dist

from gradsurgery.engine.parallel.wire import GATHERS
from tests.support.hostile import BAD, WORLD, Run
from tests.support.ranks import launch, said

pytestmark = pytest.mark.exhaustive

GATHER = "all_gather_single" if GATHERS else "all_gather_into_tensor"
CALLED = (GATHER, "all_to_all_single", "all_reduce", "all_gather_object")
STEP = {"mgda": 6, "sum": 4, "graddrop": 9}  # collectives of a step: n + 3, 4, 2n + 3
FORK = multiprocessing.get_context("fork")
SECONDS = 4  # that a group waits; ranks may share a busy core


def raise_error(others):
    raise RuntimeError("no connection")


def no_room(others):
    raise torch.OutOfMemoryError("no room")


def stop(others):
    raise KeyboardInterrupt


def die(others):
    os.kill(os.getpid(), signal.SIGKILL)


def stay(others):
    """Until the others have ended without it."""
    for _ in range(WORLD - 1):
        others.acquire(timeout=60)
    die(others)


def failing(rank, strategy, number, act, others):
    """One good step, and one in which the bad rank acts in place of a collective."""
    run = Run(rank, strategy)
    before, count = run.seen(), [0]

    def counted(call):
        def made(*args, **kwargs):
            count[0] += 1
            if run.bad and count[0] == number:
                act(others)
            return call(*args, **kwargs)

        return made

    for name in CALLED:
        setattr(dist, name, counted(getattr(dist, name)))
    losses, began = run.losses(1), time.monotonic()
    try:
        ended = said(lambda: run.surgery.backward(losses))
    except KeyboardInterrupt:
        ended = "KeyboardInterrupt", ""
    seconds = time.monotonic() - began
    others.release()
    grads, states = run.seen()
    same = all(map(torch.equal, grads, before[0])) and states == before[1]
    return ended, same, seconds, count[0]


def others_end(strategy, number, act):
    """What the bad rank ends with; the others with a RankError, and nothing is changed."""
    given = strategy, number, act, FORK.Semaphore(0)
    ends = launch(WORLD, failing, *given, timeout=SECONDS, limit=SECONDS + 8)
    for rank, end in enumerate(ends):
        if rank == BAD and act in (die, stay):
            assert end.error == "Lost"
            continue
        assert end.error is None, end.trace
        (kind, text), same, seconds, _ = end.value
        assert same, rank
        assert seconds < SECONDS + 6
        if rank != BAD:
            assert kind == "RankError"
            assert "the process group failed while" in text
    return ends[BAD].value


@pytest.mark.parametrize("strategy", [*STEP])
def test_as_many_collectives_as_counted(strategy):
    ends = launch(WORLD, failing, strategy, 0, die, FORK.Semaphore(0))
    assert [end.value[3] for end in ends] == [STEP[strategy]] * WORLD
    assert all(end.value[0] == ("", "") for end in ends)


@pytest.mark.parametrize("number", range(1, STEP["mgda"] + 1))
def test_a_rank_dies_at_each_collective(number):
    others_end("mgda", number, die)


@pytest.mark.parametrize("number", [1, 3, 5, 6])
def test_each_kind_of_collective_fails(number):
    (kind, text), *_ = others_end("mgda", number, raise_error)
    assert kind == "RankError"
    assert text.endswith("no connection")


@pytest.mark.parametrize("strategy", ["sum", "graddrop"])
def test_the_last_collectives_of_other_strategies_fail(strategy):
    for number in (STEP[strategy] - 2, STEP[strategy]):
        others_end(strategy, number, raise_error)


@pytest.mark.parametrize("act", [stop, no_room])
def test_a_rank_is_stopped_within_a_collective(act):
    (kind, _), *_ = others_end("mgda", 3, act)
    assert kind == {stop: "KeyboardInterrupt", no_room: "RankError"}[act]


def test_a_rank_that_stays_away_ends_the_others_with_the_timeout():
    others_end("mgda", 5, stay)


def after_the_last(rank):
    """The bad rank has every direction, and fails before it writes them: it is a step late."""
    run = Run(rank)
    gather, count = getattr(dist, GATHER), [0]

    def failed(*args, **kwargs):
        found = gather(*args, **kwargs)
        count[0] += 1
        if run.bad and count[0] == 2:
            raise MemoryError("no room")
        return found

    setattr(dist, GATHER, failed)
    first = said(lambda: run.surgery.backward(run.losses(1)))
    state = run.surgery.state_dict()
    second = said(lambda: run.surgery.backward(run.losses(2)))
    return first[0], state["step"], second, run.surgery.state_dict()["step"]


def test_a_rank_that_is_a_step_late_is_told_in_the_next():
    ends = launch(WORLD, after_the_last, timeout=10)
    for rank, end in enumerate(ends):
        assert end.error is None, end.trace
        first, step, (kind, text), after = end.value
        assert (first, step) == (("MemoryError", 1) if rank == BAD else ("", 2))
        assert kind == "InputError"
        assert "number of steps before: rank 0 has 2, rank 1 has 1" in text
        assert after == step

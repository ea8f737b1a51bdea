"""The forked ranks of the tests: what comes back, and what a failing or stalled one leaves."""

import time

import torch
import torch.distributed as dist

from tests.support.ranks import launch, on_ranks


def exchanged(rank, word):
    numbers = torch.full((2,), float(rank))
    dist.all_reduce(numbers)
    return word, numbers.tolist(), torch.rand(()).item()


def test_each_rank_gives_back_what_it_has_and_their_global_seeds_differ():
    found = on_ranks(3, exchanged, "word")
    assert [word for word, _, _ in found] == ["word"] * 3
    assert [numbers for _, numbers, _ in found] == [[3.0, 3.0]] * 3
    assert len({seed for _, _, seed in found}) == 3


def one_fails(rank):
    if rank == 1:
        raise ValueError("no more")
    dist.barrier()


def test_a_failing_rank_shows_its_own_error_and_ends_the_others():
    first, second = launch(2, one_fails, timeout=5)
    assert (second.error, second.said) == ("ValueError", "no more")
    assert "one_fails" in second.trace
    assert first.error == "RuntimeError"


def test_a_stalled_rank_is_ended_and_shows_where_it_stood():
    (found,) = launch(1, lambda rank: time.sleep(60), limit=1.5)
    assert found.error == "Lost"
    assert "test_harness" in found.trace

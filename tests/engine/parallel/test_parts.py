"""Parts of a batch: uneven, missing, in another order; every form of a step over ranks.

Each case is one function, which runs on a rank's part with the group, and on the joined batch
alone; it returns what both have to agree in.
"""

import pytest
import torch
import torch.distributed as dist

import gradsurgery as gs
from gradsurgery.errors import InputError
from tests.support.joined import EXAMPLES, Encoders, Tasks
from tests.support.ranks import on_ranks

ALL = list(range(EXAMPLES))
ROWS = [ALL[:7], ALL[7:9], ALL[9:]]  # of three ranks
CLOSE = 1e-5


class Run:
    """One rank's part, or the joined batch."""

    def __init__(self, rank=None):
        self.alone = rank is None
        self.rank = rank or 0
        self.rows = ALL if self.alone else ROWS[rank]
        self.group = None if self.alone else dist.group.WORLD

    @property
    def count(self):
        return len(self.rows)

    def surgery(self, model, strategy, **settings):
        torch.manual_seed(50 + self.rank)
        return gs.Surgery(strategy, model, process_group=self.group, **settings)

    def found(self, model, *more):
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()]), more


def steps(run, strategy, losses=None, kind=Tasks, count=True, **settings):
    """Five steps; `losses(run, model, step)` says which."""
    model = kind()
    surgery = run.surgery(model, strategy, **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen = []
    for step in range(5):
        optimizer.zero_grad()
        given = model.losses(step, run.rows) if losses is None else losses(run, model, step)
        record = surgery.backward(given, count=run.count if count is True else count)
        seen.append(record.losses)
        optimizer.step()
    return run.found(model, seen, [tuple(state) for state in surgery.state_dict()["groups"]])


def uneven(run):
    return steps(run, "mgda")


def uneven_sum(run):
    return steps(run, "uw")


def uneven_rows(run):
    return steps(run, "graddrop")


def missing(run):
    """Loss c is of the first rank alone: the joined one is of its rows."""

    def losses(run, model, step):
        given = model.losses(step, run.rows)
        rows = ROWS[0]
        given["c"] = model.losses(step, rows)["c"]
        if not run.alone and run.rank:
            del given["c"]
        return given

    return steps(run, "upgrad", losses)


def no_example(run):
    """The last rank has none; the joined batch is that of the others."""

    def losses(run, model, step):
        if run.alone:
            return model.losses(step, ROWS[0] + ROWS[1])
        return {} if run.rank == 2 else model.losses(step, run.rows)

    return steps(run, "mgda", losses)


def no_example_and_a_count(run):
    """A mean over no example is NaN; with a count of zero it does not count."""

    def losses(run, model, step):
        if run.alone:
            return model.losses(step, ROWS[0] + ROWS[1])
        return model.losses(step, [] if run.rank == 2 else run.rows)

    return steps(run, "mgda", losses, count=0 if run.rank == 2 else run.count)


def other_order(run):
    def losses(run, model, step):
        given = model.losses(step, run.rows)
        return dict(reversed(given.items())) if run.rank == 1 else given

    return steps(run, "pcgrad", losses)


def counts_by_name(run):
    """Loss a is of half of each rank's rows."""

    def half(rows):
        return rows[: max(1, len(rows) // 2)]

    def losses(run, model, step):
        given = model.losses(step, run.rows)
        rows = [row for own in ROWS for row in half(own)] if run.alone else half(run.rows)
        return {**given, "a": model.losses(step, rows)["a"]}

    count = {"a": len(half(run.rows)), "b": run.count, "c": run.count}
    return steps(run, "mgda", losses, count=count)


def no_common_loss(run):
    """Each rank has a loss of its own."""

    def losses(run, model, step):
        given = {n: model.losses(step, ROWS[i])[n] for i, n in enumerate("abc")}
        return given if run.alone else {"abc"[run.rank]: given["abc"[run.rank]]}

    return steps(run, "mgda", losses)


PARTS = [uneven, uneven_sum, uneven_rows, missing, no_example, no_example_and_a_count]
PARTS += [other_order, counts_by_name, no_common_loss]


def all_of(rank, cases):
    return [case(Run(rank)) for case in cases]


def compared(cases, world=3):
    ranks = on_ranks(world, all_of, cases, limit=100)
    for i, case in enumerate(cases):
        expected, _ = case(Run())
        for own in ranks:
            found, more = own[i]
            assert torch.equal(found, ranks[0][i][0]), case
            assert more == ranks[0][i][1], case
        assert (ranks[0][i][0] - expected).abs().max() < CLOSE, case


def test_parts_of_a_batch_in_every_form():
    compared(PARTS)


@pytest.mark.parametrize("count", ["many", {"a": 1}, -1, float("nan"), {"a": 1, "b": 1, "d": 2}])
def test_a_count_that_is_none_is_refused(count):
    model = Encoders()
    losses = model.losses(0, ALL)
    with pytest.raises(gs.InputError, match="count"):
        gs.backward(losses, model, "sum", count=count)
    assert all(p.grad is None for p in model.parameters())


def drop_on_one(rank):
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    rows = list(range(rank, 12, 2))
    surgery.accumulate(model.losses(0, rows))
    if rank == 1:
        surgery.discard()
    surgery.accumulate(model.losses(1, rows))
    with pytest.raises(InputError, match="combine of 2 micro-batches.*combine of 1 micro-batches"):
        surgery.combine()
    assert all(p.grad is None for p in model.parameters())
    surgery.discard()
    surgery.accumulate(model.losses(0, rows))
    surgery.accumulate(model.losses(1, rows))
    return surgery.combine().losses


def test_micro_batches_dropped_on_one_rank_are_an_error_on_all():
    first, second = on_ranks(2, drop_on_one)
    assert first == second

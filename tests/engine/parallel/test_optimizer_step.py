"""Surgery.step on ranks: what one process makes of the joined batch, and failures told to all."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from gradsurgery.errors import OptimizerError
from tests.engine.parallel.test_fsdp2 import own, sharded
from tests.engine.parallel.test_tensor_parallel import made
from tests.support.joined import EXAMPLES, Tasks, part
from tests.support.ranks import launch, on_ranks
from tests.support.sharded import Model, batch, whole

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}
CLOSE = 1e-4  # Adam divides by gradients' sizes, which differ by their rounding
REPLICATED = [
    *((way, o, s) for way in ("plain", "ddp") for o in OPTIMIZERS for s in ("mgda", "sum")),
    ("taps", "adam", "mgda"),
    ("taps", "momentum", "sum"),
    ("plain", "adam", "graddrop"),
    ("ddp", "momentum", "graddrop"),
]
SHARDED = [(way, o, s) for way in ("fsdp", "tensor") for o in OPTIMIZERS for s in ("mgda", "sum")]


def trained(model, losses, strategy, optimizer, bound=10.0, **settings):
    """What the parameters are, what is said of each step, and how many were corrected."""
    surgery = gs.Surgery(strategy, model, **settings)
    optimizer, said = OPTIMIZERS[optimizer](model.parameters()), []
    for step in range(5):
        optimizer.zero_grad()
        record = surgery.step(losses(step), optimizer, guard="correct", bound=bound)
        assert not any(group.risen for group in record.values() if len(group.objectives) > 1)
        said.append((record.change, [(g.risen, g.corrected, g.metric) for g in record.values()]))
    parameters = torch.cat([whole(p.detach()).reshape(-1) for p in model.parameters()])
    return parameters, said, dict(surgery.corrections)


def replicated(case, rows, forward=None):
    way, optimizer, strategy = case
    model = Tasks()
    used = DistributedDataParallel(model) if way == "ddp" and forward else model
    settings = {"method": "taps"} if way == "taps" else {}
    if forward:
        settings["process_group"] = dist.group.WORLD
    called = used if way == "ddp" and forward else None
    losses = lambda step: model.losses(step, rows, called)  # noqa: E731
    return trained(used, losses, strategy, optimizer, **settings)


def spread(case, rank=None):
    way, optimizer, strategy = case
    width = 8 if way == "tensor" else 9
    if rank is None:
        model, cut = Model(width), lambda x: x
    elif way == "fsdp":
        model, cut = sharded(Model(width)), own(rank, 2)
    else:
        model, cut = made("1x2", rank)
    settings = {"process_group": None} if rank is None else {}
    losses = lambda step: model(cut(batch(step)))  # noqa: E731
    # ranks bound by the mean of their shards' medians, which is not the median of all
    return trained(model, losses, strategy, optimizer, bound=1e9, **settings)


def on_two(rank, replicas, shards):
    rows = part(rank, 2)
    return [replicated(case, rows, True) for case in replicas] + [spread(c, rank) for c in shards]


def compare(replicas, shards):
    first, second = on_ranks(2, on_two, replicas, shards)
    one = [replicated(case, list(range(EXAMPLES))) for case in replicas]
    one += [spread(case) for case in shards]
    corrected = 0
    for case, a, b, alone in zip([*replicas, *shards], first, second, one, strict=True):
        assert torch.equal(a[0], b[0]), case
        assert a[1:] == b[1:], case
        assert a[2] == alone[2], case
        torch.testing.assert_close(a[0], alone[0], rtol=0, atol=CLOSE)
        corrected += a[2].get("corrected", 0)
    assert corrected > 0


def test_ranks_correct_as_one_process_on_the_joined_batch():
    compare([REPLICATED[0], REPLICATED[9]], [])


@pytest.mark.exhaustive
def test_every_way_corrects_as_one_process_on_the_joined_batch():
    compare(REPLICATED, SHARDED)


class Failing(torch.optim.Adam):
    """Raises in its second step, where it is told to."""

    def __init__(self, params, fails):
        super().__init__(params, lr=0.02)
        self.left = 1 if fails else -1

    def step(self, closure=None):
        if self.left == 0:
            raise RuntimeError("out of memory")
        self.left -= 1
        return super().step(closure)


def failing(rank, strategy, guard):
    model = Tasks()
    surgery = gs.Surgery(strategy, model, process_group=dist.group.WORLD)
    optimizer = Failing(model.parameters(), rank == 1)
    for step in range(3):
        optimizer.zero_grad()
        surgery.step(model.losses(step, part(rank, 2)), optimizer, guard=guard)


@pytest.mark.parametrize(("strategy", "guard"), [("mgda", "correct"), ("sum", "report")])
def test_where_an_optimizer_fails_on_one_rank_all_raise(strategy, guard):
    first, second = launch(2, failing, strategy, guard, limit=20)
    assert (first.error, second.error) == ("OptimizerError", "OptimizerError")
    assert "the optimizer's step failed (RuntimeError: out of memory)" in second.said
    assert "rank 1: the optimizer's step failed" in first.said
    assert "own step stands" in first.said


def failing_at_the_end(rank):
    """One rank cannot make its part of the corrected parameters."""
    from gradsurgery.engine import after_optimizer

    model = Tasks()
    surgery = gs.Surgery("sum", model, process_group=dist.group.WORLD)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    kept = after_optimizer.after

    def raising(*given):
        if rank == 1 and any(made.corrected is not None for made in given[1].values()):
            raise RuntimeError("gone")
        return kept(*given)

    after_optimizer.after = raising
    stood = []
    optimizer.register_step_post_hook(
        lambda *_: stood.append([p.detach().clone() for p in model.parameters()])
    )
    error = ""
    for step in range(10):
        optimizer.zero_grad()
        try:
            surgery.step(model.losses(step, part(rank, 2)), optimizer, guard="correct")
        except OptimizerError as found:
            error = str(found)
            break
    same = all(torch.equal(p, q) for p, q in zip(model.parameters(), stood[-1], strict=True))
    return error, same


def test_where_one_rank_cannot_write_none_does():
    (first, one), (second, other) = on_ranks(2, failing_at_the_end)
    assert "rank 1: after the optimizer" in first
    assert "(RuntimeError: gone). The optimizer's own step stands." in second
    assert one
    assert other

"""fully_shard (FSDP2): ranks train what one process would on the joined batch."""

import pytest

from tests.support.ranks import on_ranks
from tests.support.sharded import Model, alone, check, compared, train

pytestmark = pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")

WRAPS, RESHARD = ("root", "trunk", "every"), (None, True, False)
MATRIX = [(s, w, r) for s in ("mgda", "sum") for w in WRAPS for r in RESHARD]
STRATEGIES = (
    "upgrad",
    "cagrad",
    "nash-mtl",
    "pcgrad",
    "mmpareto",
    "imtl-g",
    "aligned-mtl",
    "fairgrad",
)


def sharded(model, wrap="every", mesh=None, **settings):
    from torch.distributed.fsdp import fully_shard

    parts = {"root": (), "trunk": ("first", "second"), "every": ("first", "second", "a", "b")}[wrap]
    for part in parts:
        fully_shard(getattr(model, part), mesh=mesh, **settings)
    return fully_shard(model, mesh=mesh, **settings)


def own(rank, world):
    return lambda x: x.chunk(world)[rank]


def case(rank, world, strategy, wrap="every", **more):
    settings = more.pop("settings", None)
    expected = alone(strategy, settings=settings)
    model = sharded(Model(), wrap, **more)
    record = train(model, strategy, own(rank, world), settings)
    return compared(model, record, expected)


def two_ranks(rank):
    found = {}
    for strategy, wrap, reshard in MATRIX:
        found[strategy, wrap, reshard] = case(
            rank, 2, strategy, wrap, reshard_after_forward=reshard
        )
    for strategy in STRATEGIES:
        found[strategy] = case(rank, 2, strategy, "trunk")
    for wrap in WRAPS:
        high = {"memory": "high"}
        found["high", wrap] = case(rank, 2, "mgda", wrap, settings=high, reshard_after_forward=True)
    return found


@pytest.fixture(scope="module")
def two():
    return on_ranks(2, two_ranks, limit=90)


@pytest.mark.parametrize("key", [*MATRIX, *STRATEGIES, *(("high", w) for w in WRAPS)], ids=str)
def test_two_ranks_train_what_one_process_would(two, key):
    check([found[key] for found in two])

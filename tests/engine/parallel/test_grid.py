"""The whole grid: every strategy, on every number of ranks, bare and under DDP in every way.

`nox -s distributed` runs it; the other tests of this folder take a part of it that covers it.
"""

import pytest
import torch.distributed as dist

from tests.engine.parallel.test_data_parallel import CLOSE, WAYS, unsynchronised, wrapping
from tests.support.joined import EXAMPLES, Encoders, Tasks, apart, part, trained
from tests.support.ranks import on_ranks
from tests.support.shipped import LEAST, SHIPPED

pytestmark = [pytest.mark.distributed, pytest.mark.filterwarnings("ignore")]
EVERY_WAY = ["bare", *WAYS, "no_sync"]


def strategies(kind):
    fewest = 3 if kind is Tasks else 2  # objectives of a group of several
    return [name for name in SHIPPED if LEAST.get(name, 2) <= fewest]


def on_rank(rank, kind, way):
    rows = part(rank, dist.get_world_size())
    if way == "bare":
        settings = {"process_group": dist.group.WORLD}
    else:
        settings = {"forward": wrapping(WAYS[way]) if way in WAYS else unsynchronised}
    return [trained(kind, name, rows, **settings) for name in strategies(kind)]


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("kind", [Tasks, Encoders])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_strategy_in_every_way(world, kind, way):
    ranks = on_ranks(world, on_rank, kind, way, limit=280, timeout=60)
    for i, strategy in enumerate(strategies(kind)):
        one = trained(kind, strategy, list(range(EXAMPLES)), process_group=None)
        assert apart([own[i] for own in ranks], one) < CLOSE, strategy

"""The whole grid of sharded parameters: strategies that take no rows, every way of sharding."""

import pytest

from tests.engine.parallel.test_fsdp2 import RESHARD, WRAPS, case
from tests.engine.parallel.test_tensor_parallel import WAYS
from tests.engine.parallel.test_tensor_parallel import work as tensor_parallel
from tests.support.ranks import on_ranks
from tests.support.sharded import check
from tests.support.shipped import LEAST, SHIPPED, ready

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]


OTHERS = {"rows", "cross", "scores"}  # rows are refused; test_fsdp2_loops.py has the rest
STRATEGIES = {
    name: strategy
    for name in SHIPPED
    if name not in LEAST and not (strategy := ready(name, "a")).inputs & OTHERS
}  # the model has groups of two losses
CASES = [(world, wrap, "auto") for world in (1, 2) for wrap in WRAPS]
CASES += [(3, "trunk", "auto"), (4, "trunk", "auto"), (2, "every", "high")]


def sharded(rank, world, wrap, memory):
    found = {}
    for name, strategy in STRATEGIES.items():
        for reshard in RESHARD if name in ("mgda", "sum") else (True,):
            more = {"settings": {"memory": memory}, "reshard_after_forward": reshard}
            found[name, reshard] = case(rank, world, strategy, wrap, **more)
    return found


@pytest.mark.parametrize(("world", "wrap", "memory"), CASES)
def test_fully_shard(world, wrap, memory):
    ranks = on_ranks(world, sharded, world, wrap, memory, limit=280)
    for key in ranks[0]:
        check([found[key] for found in ranks])


@pytest.mark.parametrize("world", WAYS)
def test_tensor_parallel(world):
    ranks = on_ranks(world, tensor_parallel, world, STRATEGIES.values(), limit=280)
    for key in ranks[0]:
        check([found[key] for found in ranks])

"""Tensor parallel and DTensors, alone and under fully_shard: as one process on the joined batch."""

import logging

import pytest
from torch import nn

from tests.support.ranks import on_ranks
from tests.support.sharded import Model, alone, check, compared, train

pytestmark = pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")

STRATEGIES = {2: ("mgda", "sum", "pcgrad", "mmpareto", "uw"), 4: ("mgda", "mmpareto")}
WAYS = {2: ("1x2", "1x2, heads too"), 4: ("2x2, DTensors", "2x2, with fully_shard")}
WIDTH = 8  # torch's own styles want sizes that divide


def colwise(model, mesh, heads):
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    gathered = ColwiseParallel(output_layouts=Replicate())  # the third loss takes it as a whole
    plan = {"first": gathered, "second": RowwiseParallel(input_layouts=Replicate())}
    if heads:
        plan["a"] = ColwiseParallel(output_layouts=Replicate())
        plan["b"] = RowwiseParallel(input_layouts=Replicate())
    return parallelize_module(model, mesh, plan)


def as_dtensors(model, mesh):
    """Every parameter on the whole mesh, replicated over its first dimension."""
    from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor

    along = {"first.weight": Shard(0), "first.bias": Shard(0), "second.weight": Shard(1)}

    def spread(name, module, mesh):
        for key, p in list(module.named_parameters(recurse=False)):
            where = [Replicate(), along.get(f"{name}.{key}", Replicate())]
            module.register_parameter(key, nn.Parameter(distribute_tensor(p.detach(), mesh, where)))

    return distribute_module(model, mesh, spread)


def made(way, rank):
    """A model, and this rank's part of a batch."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    model = Model(WIDTH)
    if way.startswith("1x2"):
        return colwise(model, init_device_mesh("cpu", (2,)), "heads" in way), lambda x: x
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    if way == "2x2, DTensors":
        where = [Shard(0), Replicate()]
        return as_dtensors(model, mesh), lambda x: distribute_tensor(x, mesh, where)
    colwise(model, mesh["tensor"], heads=False)
    for part in (model.first, model.second, model):
        fully_shard(part, mesh=mesh["data"])
    return model, lambda x: x.chunk(2)[rank // 2]


def work(rank, world, strategies):
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)
    found = {}
    for way in WAYS[world]:
        for strategy in strategies:
            model, part = made(way, rank)
            record = train(model, strategy, part)
            for parameter in model.parameters():
                grad = parameter.grad
                assert type(grad) is type(parameter.data), (type(grad), type(parameter))
                assert getattr(grad, "placements", None) == getattr(parameter, "placements", None)
            name = getattr(strategy, "name", strategy)
            found[way, name] = compared(model, record, alone(strategy, WIDTH))
    return found


@pytest.fixture(scope="module")
def two():
    return on_ranks(2, work, 2, STRATEGIES[2])


@pytest.fixture(scope="module")
def four():
    return on_ranks(4, work, 4, STRATEGIES[4])


@pytest.mark.parametrize("strategy", STRATEGIES[2])
@pytest.mark.parametrize("way", WAYS[2])
def test_one_dimension(two, way, strategy):
    check([found[way, strategy] for found in two])


@pytest.mark.parametrize("strategy", STRATEGIES[4])
@pytest.mark.parametrize("way", WAYS[4])
def test_two_dimensions(four, way, strategy):
    check([found[way, strategy] for found in four])

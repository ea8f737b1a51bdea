"""The metric of a step whose parameters are spread over ranks: of their parts, bounded alike."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gradsurgery.engine.metric import metric_of
from tests.support.ranks import on_ranks

ROWS = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 0.0]])  # of 3 rows one rank has one


def total(values, products):
    both = [*values, *products]
    for tensor in both:
        dist.all_reduce(tensor)
    return both


def spread(rank, world):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    params = [
        nn.Parameter(distribute_tensor(torch.zeros(3, 2), mesh, [Shard(0)])),
        nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Replicate()])),
    ]
    optimizer = torch.optim.RMSprop(params, lr=1.0, alpha=0.0, eps=0.0)
    params[0].grad = distribute_tensor(ROWS, mesh, [Shard(0)])
    params[1].grad = distribute_tensor(torch.tensor([1e-6, 0.0]), mesh, [Replicate()])
    optimizer.step()
    alike = metric_of(optimizer, params, bound=2.0, total=total)
    own = metric_of(optimizer, params, bound=1e3)
    scales = [metric.scales[id(p)] for metric in (alike, own) for p in params]
    assert not any(isinstance(scale, DTensor) for scale in scales)
    return scales, metric_of(optimizer, params[1:], bound=2.0, total=total).scales[id(params[1])]


def test_ranks_have_the_metric_of_their_parts_and_one_bound():
    (first, whole), (second, again) = on_ranks(2, spread, 2)
    # the medians are 1/2, of 1, 1/2, 1/4, 1/8 and 1e6, and 1/16, of 1/16 and 1e6
    limit = 2 * (1 / 2 * 1 / 16) ** 0.5
    assert first[0].tolist() == [pytest.approx([limit, limit]), pytest.approx([1 / 4, 1 / 8])]
    assert second[0].tolist() == [pytest.approx([1 / 16, limit])]
    assert first[1].tolist() == second[1].tolist() == pytest.approx([limit, limit])
    assert first[2].tolist() == [pytest.approx([1, 1 / 2]), pytest.approx([1 / 4, 1 / 8])]
    assert second[2].tolist() == [pytest.approx([1 / 16, 1e3 / 16])]
    assert whole.tolist() == again.tolist() == pytest.approx([1e6, 2e6])

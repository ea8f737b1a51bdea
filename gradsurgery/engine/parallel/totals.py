"""Numbers on their way to the host, summed over the ranks in one collective."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.engine.parallel.wire import FLOATS, Wire


def added(wire: Wire, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of any shapes, each summed over the ranks, in float64."""
    if not tensors:  # the same on all ranks
        return []
    own = [tensor.to(wire.device, FLOATS).reshape(-1) for tensor in tensors]
    numbers = torch.cat(own)
    wire.total(numbers)
    parts = torch.split(numbers, [len(part) for part in own])
    return [p.view(t.shape) for p, t in zip(parts, tensors, strict=True)]


def added_apart(
    wire: Wire, values: Sequence[Tensor], products: Sequence[Tensor], counted: bool
) -> tuple[list[list[float]] | None, list[Tensor]]:
    """The same for two lists, with what each rank has of the first.

    Args:
        wire: the ranks.
        values: of which each rank's are wanted as well.
        products: the others.
        counted: whether this rank's products are in the sums.

    Returns:
        The values by rank, None where there are none; and the sums of both lists.
    """
    world, rank = wire.world, wire.rank
    own = [tensor.to(wire.device, FLOATS).reshape(-1) for tensor in (*values, *products)]
    count = sum(map(len, own[: len(values)]))
    size = world * count + sum(map(len, own[len(values) :]))
    numbers = torch.zeros(size, dtype=FLOATS, device=wire.device)
    if count:
        numbers[rank * count : (rank + 1) * count] = torch.cat(own[: len(values)])
    if products and counted:
        numbers[world * count :] = torch.cat(own[len(values) :])
    wire.total(numbers)
    by_rank = numbers[: world * count].view(world, count)
    summed = torch.cat([by_rank.sum(0), numbers[world * count :]])
    parts = torch.split(summed, [len(part) for part in own])
    sums = [p.view(t.shape) for p, t in zip(parts, (*values, *products), strict=True)]
    return by_rank.tolist() if count else None, sums

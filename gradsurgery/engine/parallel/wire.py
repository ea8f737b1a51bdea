"""The collectives of a step: the only file that names them.

Each is called through the module, as `torch.distributed.NAME(..., async_op=...)`, so that whoever
counts or times them can put something in its place.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor

Wait = Callable[[], Tensor]  # the result, once it is there
FLOATS = torch.float64
GATHERS = hasattr(torch.distributed, "all_gather_single")  # its name since torch 2.13


class Wire:
    """One process group, seen from one rank.

    Args:
        group: the group.

    Attributes:
        rank: this process's number within it.
        world: how many there are.
        ranks: the number of each among all processes, by which errors name it.
        device: where small numbers travel from: the host, where the group has a backend for it, so
            that no accelerator is waited for.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rank = torch.distributed.get_rank(group)
        self.world = torch.distributed.get_world_size(group)
        self.ranks = torch.distributed.get_process_group_ranks(group)
        self._backends = _backends(group)
        kind = "cpu" if "cpu" in self._backends else next(iter(self._backends))
        self.device = torch.device(kind)

    def __deepcopy__(self, _: Any) -> "Wire":
        """A group is not copied: a copy of a Surgery exchanges over the same."""
        return self

    def integers(self, own: Sequence[int]) -> list[list[int]]:
        """The integers of every rank, by rank."""
        return self._small(torch.tensor(own, dtype=torch.int64, device=self.device))

    def floats(self, own: Sequence[float]) -> list[list[float]]:
        """The numbers of every rank, by rank."""
        return self._small(torch.tensor(own, dtype=FLOATS, device=self.device))

    def objects(self, own: Any) -> list[Any]:
        """What every rank gives, by rank: slow, for what is seldom said."""
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, own, group=self.group)
        return found

    def scatter(self, rows: Tensor) -> Wait:
        """Send row r [world, s] to rank r; the wait gives the sum [s] of what came here.

        gloo's own reduce_scatter is an all-reduce, which moves twice as much: there all rows are
        exchanged, and summed here.
        """
        world = self.world
        if self._backends.get(rows.device.type) == "gloo":
            arrived = torch.empty_like(rows)
            work = torch.distributed.all_to_all_single(
                arrived, rows, group=self.group, async_op=True
            )

            def summed() -> Tensor:
                work.wait()
                if world > 1 and arrived.dtype.itemsize >= 4:  # faster than a sum over a dimension
                    total = arrived[0] + arrived[1]
                    for row in arrived[2:]:
                        total += row
                    return total
                return arrived.sum(0) if world > 1 else arrived[0]

            return summed
        share = rows.new_empty(rows.shape[1])
        name = "reduce_scatter_single" if GATHERS else "reduce_scatter_tensor"
        reduce_scatter = getattr(torch.distributed, name)
        reduced = reduce_scatter(share, rows.view(-1), group=self.group, async_op=True)

        def received() -> Tensor:
            reduced.wait()
            return share

        return received

    def total(self, numbers: Tensor) -> Tensor:
        """Numbers summed over the ranks, in place: every rank gets the same bits."""
        torch.distributed.all_reduce(numbers, group=self.group, async_op=False)
        return numbers

    def gather(self, share: Tensor) -> Tensor:
        """The shares [s] of all ranks: [world, s]."""
        return self._gather(share, False)[0]

    def gather_later(self, share: Tensor) -> Wait:
        """The same, on its way while other things are done."""
        rows, work = self._gather(share, True)

        def received() -> Tensor:
            work.wait()
            return rows

        return received

    def _gather(self, share: Tensor, later: bool) -> tuple[Tensor, Any]:
        rows = share.new_empty(self.world, len(share))
        name = "all_gather_single" if GATHERS else "all_gather_into_tensor"
        gather = getattr(torch.distributed, name)
        return rows, gather(rows.view(-1), share, group=self.group, async_op=later)

    def _small(self, own: Tensor) -> list[Any]:
        return list(self.gather(own).tolist())


def _backends(group: Any) -> dict[str, str]:
    """Kind of device -> backend."""
    pairs = torch.distributed.get_backend_config(group).split(",")
    return {kind: backend for kind, _, backend in (pair.partition(":") for pair in pairs)}

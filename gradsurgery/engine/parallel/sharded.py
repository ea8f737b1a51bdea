"""Sharded parameters (fully_shard, tensor parallel): a step on each rank's share of the gradients.

FSDP2 and DTensor reduce gradients themselves, to each rank's share. What is left to exchange are a
few numbers: the Gram matrices' sums over the shares, and the losses' values. Each rank combines its
own share, and nothing is gathered.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parallel.dtensor import as_gradient, is_dtensor, ranks_of, share_of, whole
from gradsurgery.engine.parallel.wire import FLOATS, Wire
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError

Gradients = dict[int, dict[str, Tensor]]  # loss -> parameter -> gradient
Writable = dict[str, Tensor | None]


class Sharded:
    """The exchanges of a step over the ranks that parameters are spread over.

    Args:
        wire: their process group.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._trace: Trace | None = None

    def agree(self, losses: Losses, trace: Trace, *compared: Any) -> tuple[Losses, Trace]:
        """The same losses and reach on all ranks, or one error on all; losses as plain scalars."""
        self._trace = trace
        return replace(losses, tensors=tuple(map(whole, losses.tensors))), trace

    def scatter(
        self, passes: Iterable[Gradients], writable: Writable | None = None
    ) -> list[Gradients]:
        """This rank's shares of gradients that are reduced already."""
        if writable is not None:
            writable.clear()
        return [{i: self._shares(own) for i, own in found.items()} for found in passes]

    def _shares(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self._trace is not None and self._trace.spread is not None
        shares, tensors = self._trace.spread.shares, self._trace.tensors
        return {
            name: share_of(g, tensors[name], shares[name]) if name in shares else g
            for name, g in gradients.items()
        }

    def total(self, numbers: list[Tensor]) -> list[Tensor]:
        """The mean over the ranks of numbers on their way to the host (see `Spread.portions`)."""
        if not numbers:
            return []
        device = self.wire.device
        flat = torch.cat([number.detach().reshape(-1).to(device, FLOATS) for number in numbers])
        mean = self.wire.total(flat).div_(self.wire.world)
        parts = mean.split([number.numel() for number in numbers])
        return [part.view(n.shape) for part, n in zip(parts, numbers, strict=True)]

    def publish(self, directions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Directions that lie as their parameters do."""
        assert self._trace is not None
        targets = self._trace.targets
        return {
            name: as_gradient(d, targets[name]) if is_dtensor(targets[name]) else d
            for name, d in directions.items()
        }

"""Sharded parameters (fully_shard, tensor parallel): a step on each rank's share of the gradients.

FSDP2 and DTensor reduce gradients themselves, to each rank's share. What is left to exchange are a
few numbers: the Gram matrices' sums over the shares, and the losses' values. Each rank combines its
own share, and nothing is gathered.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from gradsurgery.engine.commit import check_takes
from gradsurgery.engine.communicator import Gradients, Scores, Wanted, Writable
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parallel.dtensor import (
    as_gradient,
    is_dtensor,
    local_of,
    share_of,
    whole,
)
from gradsurgery.engine.parallel.replicated import OVER, Replicated
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError
from gradsurgery.gradients.factored import Tap


class Sharded(Replicated):
    """The exchanges of a step over the ranks that parameters are spread over.

    Agreement and errors are those of replicated parameters; gradients and directions stay here.
    """

    sharded = True

    def propose(self, found: Mapping[str, Tap], trace: Trace, graph: Graph, every: bool) -> None:
        """No layers are tapped: of their parameters a rank holds parts."""

    def agree(
        self, losses: Losses, trace: Trace, scores: Scores, *compared: Any
    ) -> tuple[Losses, Trace, Scores]:
        """The same losses and reach on all ranks; losses that are DTensors as plain scalars."""
        if trace.features:
            raise InputError(
                "features: not for sharded parameters, whose gradients are reduced in passes that "
                "begin at the losses: leave features out."
            )
        losses, trace, scores = super().agree(losses, trace, scores, *compared)
        self._trace = trace
        return replace(losses, tensors=tuple(map(whole, losses.tensors))), trace, scores

    def scatter(
        self,
        passes: Iterable[Gradients],
        wanted: Sequence[Wanted],
        writable: Writable | None = None,
    ) -> list[Gradients]:
        """This rank's shares of gradients that are reduced already.

        Where a pass fails on some ranks alone, the others wait in collectives that are not ours:
        what is said there would be taken for gradients, so that nothing is said.
        """
        self._ready()
        at, self.at = self.at, OVER
        shares = [{i: self._shares(own) for i, own in found.items()} for found in passes]
        self.at = at
        if writable is not None:
            writable.clear()
        return shares

    def held(self, groups: list[Group]) -> list[Group]:
        spread = self._trace.spread
        if spread is None:
            return groups
        return [replace(group, parameters=spread.forms(group.parameters)) for group in groups]

    def total(self, values: list[Tensor], products: list[Tensor]) -> list[Tensor]:
        """Means over the ranks (see `Spread.portions`)."""
        return [part / self.wire.world for part in super().total(values, products)]

    def publish(self, directions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Directions that lie as their parameters do, once all ranks have theirs."""
        self._ready()
        error, targets = None, self._trace.targets
        try:
            for name, direction in directions.items():
                if is_dtensor(targets[name]):
                    directions[name] = as_gradient(direction, targets[name])
                if (grad := targets[name].grad) is not None:
                    check_takes(grad, directions[name])
        except BaseException as found:
            error = found
        return self._publish(directions, error)

    def part(self, name: str, tensor: Tensor) -> Tensor:
        """This rank's shard, padded as those of its gradients are."""
        spread = self._trace.spread
        if spread is None or name not in spread.shares:
            return tensor
        return share_of(tensor, self._trace.tensors[name], spread.shares[name])

    def portion(self, name: str) -> float:
        spread = self._trace.spread
        return (1.0 if spread is None else spread.portions([name])[0]) / self.wire.world

    def counted(self, name: str) -> float:
        return self.portion(name) * self.wire.world

    def whole(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """What this rank holds of each, without padding."""
        self._status(None)
        tensors = self._trace.tensors
        sizes = {name: local_of(tensors[name]).shape for name in parts}
        return {
            name: part if part.shape == sizes[name] else part[tuple(map(slice, sizes[name]))]
            for name, part in parts.items()
        }

    def _shares(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        spread, tensors = self._trace.spread, self._trace.tensors
        shares = {} if spread is None else spread.shares
        return {
            name: share_of(g, tensors[name], shares[name]) if name in shares else g
            for name, g in gradients.items()
        }

"""Products of a vector with the Hessian of the summed loss, over some batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery.diagnostics.frozen import Buffers, random_state, set_random_state
from gradsurgery.errors import InputError, NonFiniteError


class Curvature:
    """The summed loss at frozen weights, averaged over batches: its value, and products Hv.

    Args:
        model: given to `losses`.
        batches: at least one.
        losses: (model, batch) -> a scalar loss, or several.
        parameters: what the Hessian H is of, of one dtype and device.
        buffers: restored before each batch.

    Attributes:
        loss: its value.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        losses: Callable[[Any, Any], Any],
        parameters: Sequence[Tensor],
        buffers: Buffers,
    ) -> None:
        if not batches:
            raise InputError("batches: none was given, and at least 1 is needed.")
        self._model, self._batches, self._losses = model, batches, losses
        self._parameters, self._buffers = parameters, buffers
        self._random = random_state()
        value, gradient = self._gradient(0)
        # of several batches no graph is kept: memory
        self._kept = gradient if len(batches) == 1 else None
        self.loss = value
        if len(batches) > 1:
            others = [self._gradient(number)[0] for number in range(1, len(batches))]
            self.loss = (value + sum(others)) / len(batches)

    def product(self, vector: Tensor) -> Tensor:
        """Hv for v [d], the parameters one after the other.

        Raises:
            NonFiniteError: for one that is NaN or infinite.
        """
        parts = torch.split(vector, [p.numel() for p in self._parameters])
        shaped = [x.view_as(p) for x, p in zip(parts, self._parameters, strict=True)]
        total = torch.zeros_like(vector)
        for number in range(len(self._batches)):
            gradient = self._gradient(number)[1] if self._kept is None else self._kept
            total += self._times(gradient, shaped)
        if not bool(total.isfinite().all()):
            raise NonFiniteError("the second derivative of the summed loss is NaN or infinite.")
        return total / len(self._batches)

    def _times(self, gradient: Sequence[Tensor | None], shaped: Sequence[Tensor]) -> Tensor:
        pairs = [
            (g, v)
            for g, v in zip(gradient, shaped, strict=True)
            if g is not None and g.requires_grad  # one that is linear or unused is constant
        ]
        found: Sequence[Tensor | None] = [None] * len(shaped)
        if pairs:
            outputs, vectors = zip(*pairs, strict=True)
            found = torch.autograd.grad(
                outputs, self._parameters, vectors, retain_graph=True, allow_unused=True
            )
        parts = [
            torch.zeros_like(p) if h is None else h
            for h, p in zip(found, self._parameters, strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts])

    def _gradient(self, number: int) -> tuple[float, Sequence[Tensor | None]]:
        """The summed loss on one batch, and its gradient with a graph."""
        self._buffers.restore()
        set_random_state(self._random)
        loss = _summed(self._losses(self._model, self._batches[number]))
        if not bool(loss.detach().isfinite()):
            raise NonFiniteError(f"the summed loss is {loss.item()} on batch {number}.")
        if not loss.requires_grad:
            raise InputError("losses: the sum requires no gradient; none depends on a parameter.")
        gradient = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        return float(loss.detach()), gradient


def _summed(given: Any) -> Tensor:
    values = list(given.values()) if isinstance(given, Mapping) else given
    if isinstance(values, Tensor) or not isinstance(values, Iterable):
        values = [values]
    values = list(values)
    if not values or not all(isinstance(x, Tensor) for x in values):
        raise InputError(f"losses gave {given!r}: return a scalar loss, or several by name.")
    total: Tensor = torch.stack([x.sum() for x in values]).sum()
    return total

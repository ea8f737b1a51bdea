"""What mixtures of per-example losses were made of, to say which example is not finite."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsurgery.types import Array

SHOWN = 3  # examples that a message names


@dataclass(frozen=True, eq=False)
class Origin:
    """Losses by example and the weights of objectives.

    Attributes:
        names: the objectives'.
        values: ℓ [B] or [B, T], without graph.
        weights: A [n, ...] with the shape of the losses.
    """

    names: Sequence[str]
    values: Tensor
    weights: Array

    def of_losses(self) -> str | None:
        """Which examples have a loss of NaN or infinity, and whose objectives they are."""
        odd = ~torch.isfinite(self.values.reshape(len(self.values), -1)).all(1)
        return self._said("the loss", odd.nonzero()[:, 0].tolist())

    def of_gradients(self, sizes: Iterable[Tensor]) -> str | None:
        """The same of gradients, by what bounds their sizes, [B] or several of these joined."""
        count = len(self.values)
        found = [~torch.isfinite(own.reshape(-1, count)).all(0) for own in sizes]
        if not found:
            return None
        return self._said("the gradient", torch.stack(found).any(0).nonzero()[:, 0].tolist())

    def _said(self, what: str, examples: Sequence[int]) -> str | None:
        if not examples:
            return None
        shown = ", ".join(map(str, examples[:SHOWN]))
        shown += f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else ""
        sizes = np.abs(self.weights).reshape(*self.weights.shape[:2], -1).max(2)[:, examples]
        with_weight = [name for name, own in zip(self.names, sizes, strict=True) if own.any()]
        if with_weight:
            listed = ", ".join(map(repr, with_weight[:SHOWN]))
            listed += f" and {len(with_weight) - SHOWN} more" if len(with_weight) > SHOWN else ""
            whose = f"objectives with a weight there: {listed}"
        else:
            whose = "no objective has a weight there, but zero times NaN is NaN: leave it out"
        many = "examples" if len(examples) > 1 else "example"
        return f"{what} of {many} {shown} has NaN or inf ({whose}). Nothing was changed."

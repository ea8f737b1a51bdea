"""Gradients in a diagonal metric P: what a strategy sees that solves on JPJᵀ in place of JJᵀ."""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.outcome import Outcome
from gradsurgery.gradients.along import metric_products
from gradsurgery.gradients.blocks import Factored
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.types import Array


class Scaled:
    """The gradients of n objectives as rows of J P^½, for a diagonal P.

    Weights w that are found with them are those of the gradients: d = Jᵀw. A direction found with
    them, P^½ d, is brought back by `back`. Both say ⟨gᵢ, Pd⟩ = (JPJᵀw)ᵢ.

    Args:
        matrix: the gradients.
        scales: the diagonal of P for each tensor, a number where it is constant; what has 0 does
            not move, and does not count.
        portions: what the products of each tensor count in sums over processes.

    Attributes:
        unit: what P is divided by.
        eps: as of a `GradientMatrix`: products are summed in float64, but gradients that are
            formed from a layer's factors are rounded to their dtype.
    """

    def __init__(
        self, matrix: GradientMatrix, scales: Sequence[Tensor | float], portions: Sequence[float]
    ) -> None:
        self.matrix, self.scales, self.portions = matrix, scales, portions
        self.count, self.batches = matrix.count, matrix.batches
        self.like, self.splits = matrix.like, matrix.splits
        self.unit = 1.0
        self.eps = 1e-6 if any(isinstance(block, Factored) for block in matrix.blocks) else 1e-15
        self._grams: Array = np.zeros((0, self.count, self.count))

    def start(self) -> list[Tensor]:
        """JₜPₜJₜᵀ of each tensor, on its device."""
        found = []
        for block, scale, portion in zip(
            self.matrix.blocks, self.scales, self.portions, strict=True
        ):
            product = metric_products(block, scale, square=False)[0]
            found.append(product if portion == 1 else product * portion)
        return found

    def arrive(self, found: list[Array]) -> bool:
        """Take them; to be asked for by `to_host` before anything else."""
        grams = np.array(found)
        self._grams = (grams + grams.transpose(0, 2, 1)) / 2  # JP times Jᵀ is so up to rounding
        return True

    @property
    def gram(self) -> Array:
        """JPJᵀ [n, n], float64 on the host."""
        return np.asarray(self.block_grams.sum(0))

    @property
    def block_grams(self) -> Array:
        """[k, n, n], one per parameter tensor; they sum to `gram`."""
        return self._grams / self.unit / self.matrix.scale**2

    @property
    def cross(self) -> Array:
        """[m, m, n, n]: that between the gradients on batch a and those on batch b."""
        m, n = self.batches, self.count // self.batches
        return self.gram.reshape(m, n, m, n).transpose(0, 2, 1, 3)

    @property
    def rows(self) -> Tensor:
        """J P^½ [n, d]."""
        rows = self.matrix.rows
        return rows * self._root(rows)

    def back(self, outcome: Outcome) -> Outcome:
        """The outcome for the gradients: of a direction P^½ d it is d. P has no zeros then."""
        if outcome.direction is None:
            return outcome
        return Outcome(None, outcome.direction / self._root(outcome.direction))

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Which of the n objectives have a gradient of zero, in every batch, in all that moves."""
        squares = np.einsum("kii->i", self._grams).reshape(self.batches, -1)
        return np.asarray((squares == 0).all(axis=0))

    @property
    def some_zero(self) -> bool:
        """Whether some objective's gradient is zero in some batch."""
        return not np.einsum("kii->i", self._grams).all()

    def only(self, rows: Sequence[int], matrix: GradientMatrix) -> "Scaled":
        """That of these rows, for the matrix of these rows."""
        part = copy(self)
        part.matrix, part.count = matrix, len(rows)
        part._grams = self._grams[:, rows][:, :, rows]
        return part

    def _root(self, like: Tensor) -> Tensor:
        """P^½ [d]."""
        pieces = []
        for scale, size in zip(self.scales, self.splits, strict=True):
            whole = scale if isinstance(scale, Tensor) else torch.tensor(scale).expand(size)
            pieces.append(whole.reshape(-1).to(like.device))
        return (torch.cat(pieces) / self.unit).sqrt().to(like.dtype)


Seen = GradientMatrix | Scaled  # what a strategy is given

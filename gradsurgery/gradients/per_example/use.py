"""One use of a parameter in the graph, from which the gradients of all mixtures follow."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from gradsurgery.gradients.precision import in_pieces

LONG = 1 << 11  # columns of formed gradients whose products are summed in float32
FORMED = 1 << 23  # entries of gradients per example that are held at once


class Use(ABC):
    """The gradients W_b of B per-example losses for one parameter through one node.

    Attributes:
        examples: B.
        size: how many entries the parameter has.
        graph: whether nodes of the graph are called, which has to be there then.
    """

    graph: bool = False
    examples: int
    size: int

    @abstractmethod
    def one(self, factors: Tensor) -> Tensor:
        """Σ_b c_b W_b for c [B], flat, in the dtype of c."""

    @abstractmethod
    def many(self, mixture: Tensor) -> Tensor:
        """Σ_b Aᵢ_b W_b for A [n, B], as rows [n, size], in float32 or wider."""

    def along(self, step: Tensor) -> Tensor | None:
        """⟨W_b, U⟩ [B] for a step U of the parameter; None where only W_b itself tells."""
        return None

    def kernel(self, wide: bool) -> Tensor:
        """⟨W_b, W_c⟩ [B, B] in float64.

        Args:
            wide: form products in float64, not in float32.
        """
        return inner(self.many(torch.eye(self.examples, device=self.device)), wide)

    def forms(self, n: int) -> bool:
        """Whether the Gram matrix of n mixtures is had for less from them than from K [B, B]."""
        return n <= self.examples

    def by_rows(self, n: int) -> bool:
        """Whether the Gram matrix of n mixtures is made of products of all rows of two factors.

        Their rounding is relative to `bounds`; that of others to the gradients themselves.
        """
        return False

    @abstractmethod
    def bounds(self) -> Tensor | None:
        """What ‖W_b‖ does not exceed [B]; None where gradients are formed by autograd."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the factors are."""


class Sum(Use):
    """Several uses of one parameter: their gradients add up."""

    def __init__(self, uses: list[Use]) -> None:
        self.uses = uses
        self.examples, self.size = uses[0].examples, uses[0].size
        self.graph = any(use.graph for use in uses)

    def one(self, factors: Tensor) -> Tensor:
        return torch.stack([use.one(factors) for use in self.uses]).sum(0)

    def many(self, mixture: Tensor) -> Tensor:
        total = self.uses[0].many(mixture)
        for use in self.uses[1:]:
            total = total + use.many(mixture)
        return total

    def along(self, step: Tensor) -> Tensor | None:
        found = [use.along(step) for use in self.uses]
        whole = [part for part in found if part is not None]
        return torch.stack(whole).sum(0) if len(whole) == len(found) else None

    def bounds(self) -> Tensor | None:
        found = [bound for use in self.uses if (bound := use.bounds()) is not None]
        return torch.stack(found).sum(0) if found else None

    @property
    def device(self) -> torch.device:
        return self.uses[0].device


def sizes(parts: Tensor) -> Tensor:
    """‖·‖ of each example's part [B]."""
    dtype = torch.promote_types(parts.dtype, torch.float32)
    found: Tensor = torch.linalg.vector_norm(parts.reshape(len(parts), -1), dim=1, dtype=dtype)
    return found


def inner(rows: Tensor, wide: bool) -> Tensor:
    """The inner products of some rows [n, n], in float64."""
    if wide and rows.dtype != torch.float64:
        return sum_of_pieces(rows)
    return in_pieces(rows, rows, LONG)


def sum_of_pieces(rows: Tensor) -> Tensor:
    """The inner products in float64 of rows that are not, without a copy of all of them."""
    n = len(rows)
    total = torch.zeros(n, n, dtype=torch.float64, device=rows.device)
    for piece in torch.split(rows, max(1, FORMED // (4 * max(n, 1))), dim=1):
        own = piece.double()
        total += own @ own.T
    return total


def between(kernel: Tensor, mixture: Tensor) -> Tensor:
    """A K Aᵀ [n, n] in float64."""
    own = mixture.double()
    return own @ kernel @ own.T

"""All uses of one parameter tensor, and the mixtures of examples that are the objectives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.gradients.per_example.each import Each
from gradsurgery.gradients.per_example.product import Product, joined
from gradsurgery.gradients.per_example.use import Sum, Use, between, inner
from gradsurgery.gradients.precision import INDEPENDENT_MIXTURES
from gradsurgery.types import Array

KEPT = 16  # objectives, up to which what was formed of a tensor is kept for the direction


@dataclass(eq=False)
class Mixture:
    """A [n, B]: how much of each example's loss each objective has.

    Attributes:
        weights: A, float64 on the host.
        device: where gradients are.
    """

    weights: Array
    device: torch.device
    _there: dict[torch.dtype, Tensor] = field(default_factory=dict)
    _last: tuple[Any, ...] = ()  # the weights asked for last, and what became of them

    @cached_property
    def identity(self) -> bool:
        """Whether each objective is one example."""
        n, b = self.weights.shape
        return n == b and bool((self.weights == np.eye(n)).all())

    @cached_property
    def independent(self) -> bool:
        """Whether the mixtures differ so much that only examples could make them dependent."""
        rows = self.weights[np.abs(self.weights).sum(1) > 0]
        if self.identity or len(rows) < 2:
            return True
        if len(rows) > rows.shape[1]:
            return False
        rows = rows / np.abs(rows).max(1, keepdims=True)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return bool(np.linalg.eigvalsh(rows @ rows.T)[0] > INDEPENDENT_MIXTURES)

    def on(self, dtype: torch.dtype) -> Tensor:
        """A on the device."""
        if dtype not in self._there:
            self._there[dtype] = torch.as_tensor(self.weights, dtype=dtype).to(self.device)
        return self._there[dtype]

    def only(self, rows: Sequence[int]) -> "Mixture":
        """Some of the objectives, in this order."""
        if list(rows) == list(range(len(self.weights))):
            return self
        return Mixture(self.weights[list(rows)], self.device)

    def factors(self, weights: Sequence[float], dtype: torch.dtype, formed: bool) -> Tensor:
        """What each example counts in Σ wᵢLᵢ, Aᵀw [B], on the device; w itself where `formed`.

        The tensors of a group ask for the same, which is made once.
        """
        key = weights, dtype, formed
        if not self._last or self._last[0] is not weights or self._last[1:3] != key[1:]:
            own = np.asarray(weights, np.float64)
            numbers = own if formed else own @ self.weights
            self._last = (*key, torch.as_tensor(numbers, dtype=dtype).to(self.device))
        found: Tensor = self._last[3]
        return found


class Rows(Sequence["Tensor | None"]):
    """The gradients of the objectives for one tensor, each formed when it is asked for."""

    def __init__(self, block: "Mixed") -> None:
        self._block = block

    def __len__(self) -> int:
        return len(self._block.mixture.weights)

    def __getitem__(self, i: Any) -> Any:
        return self._block.gradient(i)

    def __iter__(self) -> Iterator[Tensor | None]:
        return (self._block.gradient(i) for i in range(len(self)))


class Mixed:
    """The gradients of n mixtures for one tensor, of which none is formed until it is asked for.

    Args:
        uses: of the tensor.
        like: the parameter.
        mixture: A.
    """

    def __init__(self, uses: Sequence[Use], like: Tensor, mixture: Mixture) -> None:
        self.use, self.like, self.mixture = _as_one(uses), like, mixture
        self.rows: Tensor | None = None  # the mixtures' gradients [n, size], where few were formed

    @property
    def gradients(self) -> Rows:
        """The gradients by objective. Not kept, so that no two objects hold each other."""
        return Rows(self)

    def gradient(self, i: int) -> Tensor:
        """The gradient of objective i, of the parameter's shape."""
        if self.rows is not None:
            return self.rows[i].view(self.like.shape)
        dtype = torch.promote_types(self.like.dtype, torch.float32)
        row = torch.as_tensor(self.mixture.weights[i], dtype=dtype).to(self.use.device)
        return self.use.one(row).view(self.like.shape)

    def only(self, rows: Sequence[int]) -> "Mixed":
        """Of some objectives."""
        return self.of(self.mixture.only(rows))

    def of(self, mixture: Mixture) -> "Mixed":
        """Of other mixtures of the same examples."""
        return Mixed([self.use], self.like, mixture)

    def along(self, step: Tensor) -> Tensor | None:
        """⟨gᵢ, U⟩ [n] for a step U of the tensor, where that needs no gradient to be formed."""
        if self.rows is not None:
            return self.rows.to(step.dtype) @ step.reshape(-1)
        found = self.use.along(step)
        return None if found is None else self.mixture.on(torch.float64) @ found.double()

    def formed(self) -> Tensor:
        """All gradients as rows [n, size]."""
        return self.use.many(self.mixture.on(torch.float64)) if self.rows is None else self.rows

    @torch.no_grad()
    def combine(self, weights: Sequence[float], precise: bool) -> Tensor:
        """Σ wᵢWᵢ in the parameter's dtype and layout, by one product, or of what was formed."""
        like = self.like
        dtype = torch.float64 if precise else torch.promote_types(like.dtype, torch.float32)
        there = self.mixture.factors(weights, dtype, self.rows is not None)
        found = self.use.one(there) if self.rows is None else there @ self.rows.to(dtype)
        out = found.view(like.shape)
        if out.dtype == like.dtype and out.stride() == like.stride():
            return out
        return torch.empty_like(like).copy_(out)


@torch.no_grad()
def products_of(
    blocks: Sequence[tuple[int, Mixed]], per_tensor: bool, wide: bool
) -> tuple[list[tuple[int, Tensor]], list[Tensor]]:
    """The Gram matrices of some tensors or the parts of their sum, and what bounds their rounding.

    Args:
        blocks: the tensors' positions, and their gradients.
        per_tensor: one Gram matrix per tensor, and not their sum.
        wide: form products in float64.
    """
    mixture = blocks[0][1].mixture
    own, n, parts, every = (
        mixture.on(torch.float64),
        len(mixture.weights),
        list[tuple[int, Tensor]](),
        blocks,
    )
    kernels: list[Tensor] = []
    for t, block in blocks:
        if block.use.forms(n) and n < block.use.examples:
            if block.rows is None:
                formed = block.use.many(own)
                block.rows = formed if n <= KEPT else None
            else:
                formed = block.rows
            parts.append((t if per_tensor else 0, inner(formed, wide)))
        elif per_tensor:
            parts.append((t, between(block.use.kernel(wide), own)))
        else:
            kernels.append(block.use.kernel(wide))
    if kernels:
        total = torch.stack(kernels).sum(0) if len(kernels) > 1 else kernels[0]
        parts.append((0, total if mixture.identity else between(total, own)))
    return parts, [] if wide else _lost(every, mixture)


def _lost(blocks: Sequence[tuple[int, Mixed]], mixture: Mixture) -> list[Tensor]:
    """(Σ_b |Aᵢ_b| ‖W_b‖)² [n], to which the rounding of float32 products is relative."""
    sizes = mixture.on(torch.float64).abs()
    n = len(sizes)
    found = [block.use.bounds() for _, block in blocks if block.use.by_rows(n)]
    return [(sizes @ bound.double()).square() for bound in found if bound is not None]


def _as_one(uses: Sequence[Use]) -> Use:
    """One use that stands for all."""
    if len(uses) == 1:
        return uses[0]
    if all(type(use) is Each for use in uses):
        return Each(torch.stack([use.rows for use in uses if isinstance(use, Each)]).sum(0))
    plain = [use for use in uses if type(use) is Product]
    if len(plain) == len(uses) and len({use.swapped for use in plain}) == 1:
        return joined(plain)
    return Sum(list(uses))

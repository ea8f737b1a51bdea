"""All uses of one parameter tensor, and the mixtures of examples that are the objectives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gradsurgery.gradients.per_example.each import Each
from gradsurgery.gradients.per_example.product import Product, joined
from gradsurgery.gradients.per_example.use import Sum, Use, between, inner
from gradsurgery.types import Array


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

    @cached_property
    def identity(self) -> bool:
        """Whether each objective is one example."""
        n, b = self.weights.shape
        return n == b and bool((self.weights == np.eye(n)).all())

    def on(self, dtype: torch.dtype) -> Tensor:
        """A on the device."""
        if dtype not in self._there:
            self._there[dtype] = torch.as_tensor(self.weights, dtype=dtype).to(self.device)
        return self._there[dtype]

    def only(self, rows: Sequence[int]) -> "Mixture":
        """Some of the objectives."""
        return Mixture(self.weights[list(rows)], self.device)


class Rows(Sequence["Tensor | None"]):
    """The gradients of the objectives for one tensor, each formed when it is asked for."""

    def __init__(self, block: "Mixed") -> None:
        self._block = block

    def __len__(self) -> int:
        return len(self._block.mixture.weights)

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
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
        self.gradients = Rows(self)

    def gradient(self, i: int) -> Tensor:
        """The gradient of objective i, of the parameter's shape."""
        dtype = torch.promote_types(self.like.dtype, torch.float32)
        row = torch.as_tensor(self.mixture.weights[i], dtype=dtype).to(self.use.device)
        return self.use.one(row).view(self.like.shape)

    @property
    def sample(self) -> list[Tensor]:
        """What tells dtype and device of the gradients, and how many numbers they are made of."""
        return [self.like]

    def only(self, rows: Sequence[int]) -> "Mixed":
        """Of some objectives."""
        return Mixed([self.use], self.like, self.mixture.only(rows))

    def formed(self) -> Tensor:
        """All gradients as rows [n, size]."""
        return self.use.many(self.mixture.on(torch.float64))

    @torch.no_grad()
    def combine(self, weights: Sequence[float], precise: bool) -> Tensor:
        """Σ wᵢWᵢ in the parameter's dtype and layout, by one product."""
        factors = np.asarray(weights, np.float64) @ self.mixture.weights
        like = self.like
        dtype = torch.float64 if precise else torch.promote_types(like.dtype, torch.float32)
        found = self.use.one(torch.as_tensor(factors, dtype=dtype).to(self.use.device))
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
    own, n, parts, every = mixture.on(torch.float64), len(mixture.weights), [], blocks
    small = [] if per_tensor else [(t, b) for t, b in blocks if isinstance(b.use, Each)]
    kernels: list[Tensor] = []
    if len(small) > 1:
        rows = torch.cat([b.use.rows for _, b in small if isinstance(b.use, Each)], 1)
        blocks = [(t, b) for t, b in blocks if not isinstance(b.use, Each)]
        if n >= len(rows):
            kernels.append(inner(rows, wide))
        else:
            parts.append((0, inner(own.to(rows.dtype) @ rows, wide)))
    for t, block in blocks:
        if n >= block.use.examples and not per_tensor:
            kernels.append(block.use.kernel(wide))
        else:
            parts.append((t if per_tensor else 0, block.use.gram(own, wide)))
    if kernels:
        total = torch.stack(kernels).sum(0) if len(kernels) > 1 else kernels[0]
        parts.append((0, total if mixture.identity else between(total, own)))
    return parts, [] if wide else _lost(every, mixture)


def _lost(blocks: Sequence[tuple[int, Mixed]], mixture: Mixture) -> list[Tensor]:
    """(Σ_b |Aᵢ_b| ‖W_b‖)² [n], to which the rounding of float32 products is relative."""
    sizes = mixture.on(torch.float64).abs()
    found = [block.use.bounds() for _, block in blocks]
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

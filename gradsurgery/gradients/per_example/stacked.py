"""Several passes over the same examples: their parts count as examples of their own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.each import Each
from gradsurgery.gradients.per_example.product import Product
from gradsurgery.gradients.per_example.use import Sum, Use


class Stacked(Use):
    """The uses of one parameter in r passes, as one of r·B examples."""

    def __init__(self, uses: Sequence[Use]) -> None:
        self.uses = list(uses)
        self.examples = sum(use.examples for use in uses)
        self.size = uses[0].size
        self.graph = any(use.graph for use in uses)

    @property
    def device(self) -> torch.device:
        return self.uses[0].device

    def one(self, factors: Tensor) -> Tensor:
        parts = self._split(factors)
        return torch.stack([u.one(own) for u, own in zip(self.uses, parts, strict=True)]).sum(0)

    def many(self, mixture: Tensor) -> Tensor:
        parts = self._split(mixture)
        return torch.stack([u.many(own) for u, own in zip(self.uses, parts, strict=True)]).sum(0)

    def forms(self, n: int) -> bool:
        return True  # K between passes is not known

    def along(self, step: Tensor) -> Tensor | None:
        found = [part for use in self.uses if (part := use.along(step)) is not None]
        return torch.cat(found) if len(found) == len(self.uses) else None

    def bounds(self) -> Tensor | None:
        found = [part for use in self.uses if (part := use.bounds()) is not None]
        return torch.cat(found) if len(found) == len(self.uses) else None

    def _split(self, factors: Tensor) -> Sequence[Tensor]:
        return torch.split(factors, [use.examples for use in self.uses], dim=-1)


def stacked(passes: Sequence[Sequence[Use]]) -> list[Use]:
    """The uses of one parameter from those of each pass."""
    if len(passes) == 1:
        return list(passes[0])
    if len({len(uses) for uses in passes}) == 1:
        return [_joined(same) for same in zip(*passes, strict=True)]
    some = next(use for uses in passes for use in uses)
    nothing = Each(torch.zeros(some.examples, some.size, device=some.device))
    return [Stacked([Sum(list(uses)) if uses else nothing for uses in passes])]


def _joined(uses: Sequence[Use]) -> Use:
    if all(type(use) is Each for use in uses):
        return Each(torch.cat([use.rows for use in uses if isinstance(use, Each)]))
    plain = [use for use in uses if type(use) is Product]
    if len(plain) == len(uses):
        left = torch.cat([use.left for use in plain])
        return Product(left, torch.cat([use.right for use in plain]), plain[0].swapped)
    return Stacked(uses)

"""Where the examples of a batch are in a tensor: in which dimension, and in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The dimension that counts examples, alone or joined with another one.

    Attributes:
        dim: the dimension, of B·m entries.
        last: whether entry k belongs to example k mod B, as where [T, B, ...] was flattened; else
            to example k // m.
    """

    dim: int = 0
    last: bool = False

    def split(self, tensor: Tensor, examples: int) -> Tensor:
        """[B, ...] with the examples first, and of dimension `dim` what is left of it, m."""
        shape, more = tensor.shape, tensor.shape[self.dim] // examples
        pair = (more, examples) if self.last else (examples, more)
        parts = tensor.reshape(*shape[: self.dim], *pair, *shape[self.dim + 1 :])
        return parts.movedim(self.dim + self.last, 0)

    def times(self, tensor: Tensor, factors: Tensor) -> Tensor:
        """The tensor with the part of example b times the b-th of the factors [B]."""
        return tensor * self.spread(factors, tensor)

    def spread(self, factors: Tensor, like: Tensor) -> Tensor:
        """The factors [B] of the entries of a tensor, of a shape that goes with it."""
        more = like.shape[self.dim] // len(factors)
        each = factors.repeat(more) if self.last else factors.repeat_interleave(more)
        return each.view(-1, *[1] * (like.ndim - self.dim - 1))


def layouts(shape: Sequence[int], examples: int) -> Iterator[Layout]:
    """The layouts that a tensor of this shape may have, the usual ones first."""
    for dim, size in enumerate(shape):
        if size and size % examples == 0:
            yield Layout(dim)
            if size > examples > 1:
                yield Layout(dim, last=True)


@torch.no_grad()
def agree(tensor: Tensor, fitting: Sequence[Layout], examples: int) -> bool:
    """Whether all entries but zeros belong to the same examples in several layouts."""
    numbers = torch.arange(examples, device=tensor.device)
    first, *others = [layout.spread(numbers, tensor) for layout in fitting]
    return not any(bool(((own != first) & (tensor != 0)).any()) for own in others)


@torch.no_grad()
def found(
    once: Tensor,
    again: Tensor,
    factors: Tensor,
    examples: int,
    accuracy: float,
    only: Layout | None = None,
) -> list[Layout]:
    """The layouts under which `again` is `once` with each example's part times its factor.

    Where there is none, a part depends on other examples, or has parts of several.

    Args:
        once: the gradient at a node for Σ ℓ_b.
        again: that for Σ r_b ℓ_b.
        factors: r [B], all different.
        examples: B.
        accuracy: the rounding that is allowed, relative to each example's part.
        only: the one that is asked about; None for all.
    """
    fitting = []
    for layout in layouts(once.shape, examples) if only is None else (only,):
        parts = layout.split(again, examples).reshape(examples, -1)
        wanted = layout.split(layout.times(once, factors), examples).reshape(examples, -1)
        sizes = wanted.norm(dim=1)
        allowed = accuracy * (sizes + sizes.max() / 100)
        if bool(((parts - wanted).norm(dim=1) <= allowed).all()):
            fitting.append(layout)
    return fitting

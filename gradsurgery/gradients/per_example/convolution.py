"""Convolutions of any dimension, stride, padding, dilation and number of groups."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.product import PIECE, Product
from gradsurgery.gradients.per_example.use import FORMED, sizes


@dataclass(frozen=True)
class How:
    """What a convolution was called with."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


class Convolution(Product):
    """W_b = Δ_bᵀx_b, where the rows of x_b are the patches that the kernel sees.

    Args:
        delta: Δ [N, out, places...], N = B·m images.
        images: x [N, in, ...].
        weight: the kernel, for its shape.
        how: what it was called with; not transposed.
        layout: where the examples are among the N images.
        examples: B.
    """

    def __init__(
        self, delta: Tensor, images: Tensor, weight: Tensor, how: How, layout: Layout, examples: int
    ) -> None:
        self.delta, self.images, self.weight, self.how = delta, images, weight, how
        self.layout, self.swapped = layout, False
        self.examples, self.groups = examples, how.groups
        self.places = prod(delta.shape[2:])
        self.rows = len(delta) // examples * self.places
        self.out = delta.shape[1] // how.groups
        self.inside = prod(weight.shape[1:])
        self.size = weight.numel()
        self._delta, self._images = layout.split(delta, examples), layout.split(images, examples)
        self.left = delta  # for its dtype

    @property
    def device(self) -> torch.device:
        return self.delta.device

    def factors(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        delta, images = self._delta[start:stop], self._images[start:stop]
        b, more, channels = delta.shape[:3]
        left = delta.reshape(b, more, self.groups, channels // self.groups, self.places)
        left = left.permute(0, 2, 3, 1, 4).reshape(b, self.groups, channels // self.groups, -1)
        seen = patches(images.flatten(0, 1), self.weight.shape[2:], self.how)
        seen = seen.view(b, more, self.groups, self.inside, self.places)
        return left, seen.permute(0, 2, 3, 1, 4).reshape(b, self.groups, self.inside, -1)

    def one(self, factors: Tensor) -> Tensor:
        delta = self.layout.times(self.delta.to(factors.dtype), factors)
        how = self.how
        images, weight = self.images.to(factors.dtype), self.weight.detach().to(factors.dtype)
        found: Tensor = torch.ops.aten.convolution_backward(
            delta,
            images,
            weight,
            None,
            how.stride,
            how.padding,
            how.dilation,
            how.transposed,
            how.output_padding,
            how.groups,
            (False, True, False),
        )[1]
        return found.reshape(-1)

    def bounds(self) -> Tensor:
        # an entry of the images is in at most so many patches
        seen: float = float(prod(self.weight.shape[2:])) ** 0.5
        return sizes(self._delta) * sizes(self._images) * seen

    def _by_rows(self, wide: bool) -> Tensor:
        return Product(*self.factors(0, self.examples))._by_rows(wide)

    def _some(self, each: int, room: int = PIECE) -> int:
        entries = each + self.groups * self.rows * (self.inside + self.out)
        return max(1, min(self.examples, FORMED // max(1, entries)))


def patches(images: Tensor, kernel: torch.Size, how: How) -> Tensor:
    """What the kernel sees at each place [N, channels, kernel..., places...], copied once."""
    padding = [p for size in reversed(how.padding) for p in (size, size)]
    if any(padding):
        images = torch.nn.functional.pad(images, padding)
    places = [
        (size - step * (width - 1) - 1) // stride + 1
        for size, width, stride, step in zip(
            images.shape[2:], kernel, how.stride, how.dilation, strict=True
        )
    ]
    first, second, *rest = images.stride()
    within = [step * stride for step, stride in zip(how.dilation, rest, strict=True)]
    across = [step * stride for step, stride in zip(how.stride, rest, strict=True)]
    view = images.as_strided(
        (*images.shape[:2], *kernel, *places), (first, second, *within, *across)
    )
    return view.contiguous()

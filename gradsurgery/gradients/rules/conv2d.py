"""Two-dimensional convolutions: x [rows, in] are the patches that the kernel sees.

There is one row per example and place of the output, and one column per channel and place of the
kernel. So rows are many, and the factors pay where outputs are small and channels many. A network's
first convolution, whose images need no gradient, is left to autograd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from gradsurgery.gradients.factored import (
    Layer,
    Match,
    Rule,
    Uses,
    leaf_of,
    multiplications,
    register,
    saved,
)

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Conv2d(Layer):
    """A convolution of images [examples, channels, height, width], with one group of channels."""

    images: Tensor
    kernel: torch.Size  # the weight's shape
    stride: Pair
    padding: Pair
    dilation: Pair

    def rows(self, delta: Tensor) -> Tensor:
        return delta.permute(0, 2, 3, 1).flatten(0, 2)

    def inner(self, dtype: torch.dtype) -> Tensor:
        x = self._patches(self.images.to(dtype))
        return x @ x.T

    def project(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        images, kernel = self.images.to(vector.dtype), vector.view(1, *self.kernel[1:])
        how = None, self.stride, self.padding, self.dilation
        squares = F.conv2d(images.square(), torch.ones_like(kernel), *how)
        return F.conv2d(images, kernel, *how).flatten(), squares.flatten()

    def gradient(self, delta: Tensor) -> Tensor:
        images = self.images.to(delta.dtype)
        how = self.stride, self.padding, self.dilation
        found: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]  # torch has none
            images, self.kernel, delta, *how
        )
        return found

    def image(self, weight: Tensor) -> Tensor:
        images, how = self.images.to(weight.dtype), (self.stride, self.padding, self.dilation)
        return F.conv2d(images, weight, None, *how)

    def _patches(self, images: Tensor) -> Tensor:
        """[rows, in], copied once out of a view that has a patch per place."""
        (above, left), (down, across) = self.padding, self.stride
        images = F.pad(images, (left, left, above, above))
        _, channels, height, width = self.kernel
        examples, _, *size = images.shape
        tall, wide = (
            (size[i] - self.dilation[i] * (self.kernel[2 + i] - 1) - 1) // self.stride[i] + 1
            for i in range(2)
        )
        to_next, to_channel, to_row, to_column = images.stride()
        view = images.as_strided(
            (examples, tall, wide, channels, height, width),
            (
                to_next,
                down * to_row,
                across * to_column,
                to_channel,
                self.dilation[0] * to_row,
                self.dilation[1] * to_column,
            ),
        )
        return view.reshape(examples * tall * wide, channels * height * width)


def match(node: Any, uses: Uses) -> Match | None:
    """A convolution of images whose channels are in one group, and that is not transposed."""
    before, to_weight, to_bias = node.next_functions
    weight, bias = leaf_of(to_weight, uses), leaf_of(to_bias, uses)
    if weight is None or weight.ndim != 4 or node._saved_transposed or node._saved_groups != 1:
        return None
    if before[0] is None or (to_bias[0] is not None and bias is None):
        return None
    output = getattr(node, "_input_metadata", None)  # of what the node is given: Δ's shape
    if not output:
        return None
    examples, out, height, width = map(int, output[0].shape)
    rows = examples * height * width
    shape = rows, out, weight.numel() // out
    return Match(node, weight, shape, before, bias, (node.register_hook,))


def read(match: Match, unpack: bool) -> Conv2d | None:
    """The layer, when its images can be had as they are."""
    node, weight = match.node, match.weight
    images = saved(node, "input", unpack)
    if images is None or images.dtype != weight.dtype or images.layout != torch.strided:
        return None
    how = (_pair(node._saved_stride), _pair(node._saved_padding), _pair(node._saved_dilation))
    return Conv2d(images.detach(), weight.shape, *how)


def _pair(sizes: Sequence[int]) -> Pair:
    first, second = map(int, sizes)
    return first, second


RULE = register(
    # oneDNN forms the weight's gradient wherever the bias's is asked for.
    Rule(("ConvolutionBackward0",), match, multiplications, read, bias_apart=False, copied=True)
)

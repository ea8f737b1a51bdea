"""What is known of the n gradients of one parameter tensor: they, their factors, or their Gram."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gradsurgery.gradients.factored import Layer
from gradsurgery.gradients.per_example.block import Mixed


@dataclass(slots=True, eq=False)
class Dense:
    """The gradients themselves, one per objective; None where it does not reach the tensor."""

    gradients: list[Tensor | None]
    like: Tensor
    """The parameter, for its shape, dtype and device."""
    into: Tensor | None = None
    """The memory of one of the gradients, where the direction may be formed in it."""


@dataclass(slots=True, eq=False)
class Sparse:
    """Sparse gradients; the direction is sparse too."""

    gradients: list[Tensor | None]
    like: Tensor


@dataclass(slots=True, eq=False)
class Factored:
    """The gradients at a layer's output, from which those of its weight follow."""

    gradients: list[Tensor | None]
    like: Tensor
    layer: Layer


Block = Dense | Sparse | Factored | Mixed


@dataclass(frozen=True)
class GramOnly:
    """The Gram matrix of gradients that were not kept, summed over some tensors.

    `places` are the rows and columns of it that belong to this group's objectives.
    """

    gram: Tensor
    places: Sequence[int]


def gradient_of(block: Block, i: int) -> Tensor | None:
    """The gradient of objective i, of the parameter's shape; of a factored one it is formed."""
    gradient = block.gradients[i]
    if gradient is None or not isinstance(block, Factored):
        return gradient
    return block.layer.gradient(gradient)

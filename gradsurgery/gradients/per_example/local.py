"""Any other node: the backward of that node alone, once per objective."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.use import Use


class Local(Use):
    """The gradients that one node gives a parameter from the gradients at its outputs.

    Args:
        node: the node, whose graph is kept.
        deltas: the gradient at each of its outputs, or None.
        where: the layout of each.
        parameter: what gets the gradient.
        examples: B.
    """

    graph = True

    def __init__(
        self,
        node: Any,
        deltas: Sequence[Tensor | None],
        where: Sequence[Layout | None],
        parameter: Tensor,
        examples: int,
    ) -> None:
        self.outputs = [
            (GradientEdge(node, k), delta, layout)
            for k, (delta, layout) in enumerate(zip(deltas, where, strict=True))
            if delta is not None and layout is not None
        ]
        self.parameter, self.examples, self.size = parameter, examples, parameter.numel()

    @property
    def device(self) -> torch.device:
        return self.parameter.device

    def one(self, factors: Tensor) -> Tensor:
        edges = [edge for edge, _, _ in self.outputs]
        roots = [layout.times(delta, factors.to(delta.dtype)) for _, delta, layout in self.outputs]
        (found,) = torch.autograd.grad(
            edges, [self.parameter], roots, retain_graph=True, allow_unused=True
        )
        if found is None:
            return factors.new_zeros(self.size)
        return flat(found.detach()).to(factors.dtype)

    def many(self, mixture: Tensor) -> Tensor:
        dtype = torch.promote_types(self.parameter.dtype, torch.float32)
        return torch.stack([self.one(row) for row in mixture.to(dtype)])

    def bounds(self) -> None:
        return None


def flat(gradient: Tensor) -> Tensor:
    """A gradient as one row; those of embeddings may be sparse."""
    dense: Tensor = gradient.to_dense() if gradient.layout != torch.strided else gradient
    return dense.reshape(-1)

"""Linear layers y = xWᵀ + b, as F.linear makes them, with sequences counting as more rows."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """A linear layer with input x [rows, in]."""

    inputs: Tensor

    def rows(self, delta: Tensor) -> Tensor:
        return delta

    def inner(self, dtype: torch.dtype) -> Tensor:
        x = self.inputs.to(dtype)
        return x @ x.T

    def project(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inputs.to(vector.dtype)
        return x @ vector, x.square().sum(1)

    def gradient(self, delta: Tensor) -> Tensor:
        return delta.T @ self.inputs.to(delta.dtype)

    def image(self, weight: Tensor) -> Tensor:
        return self.inputs.to(weight.dtype) @ weight.T


def match(node: Any, uses: Uses) -> Match | None:
    """An `addmm` or `mm` with the transpose of a weight."""
    addmm = type(node).__name__ == "AddmmBackward0"
    edges = node.next_functions
    transposed = edges[-1][0]
    if type(transposed).__name__ != "TBackward0" or uses(transposed) != 1:
        return None
    weight = leaf_of(transposed.next_functions[0], uses)
    if weight is None or (addmm and (node._saved_alpha != 1 or node._saved_beta != 1)):
        return None
    sizes = node._saved_mat1_sym_sizes if addmm else node._saved_self_sym_sizes
    out, inside = weight.shape
    return Match(
        node,
        weight,
        (int(sizes[0]), out, inside),
        edges[-2],
        getattr(edges[0][0], "variable", None) if addmm else None,
        # What Module.register_backward_hook registers is on the layer's node.
        (node.register_hook, transposed.register_hook, transposed.register_prehook),
        "mat2",  # Wᵀ, which the node keeps for the gradient of x
    )


def read(match: Match, unpack: bool) -> Linear | None:
    """The layer, when x can be had as it is."""
    name = "mat1" if type(match.node).__name__ == "AddmmBackward0" else "self"
    x = saved(match.node, name, unpack)
    if x is None or x.ndim != 2 or x.dtype != match.weight.dtype or x.layout != torch.strided:
        return None
    return Linear(x.detach())


RULE = register(Rule(("AddmmBackward0", "MmBackward0"), match, cost=multiplications, read=read))

"""Per-loss gradients by torch.autograd.grad: each loss's graph is traversed once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.autograd.compiled import several_passes


def gather(losses: Sequence[Tensor], roots: Sequence[Tensor], wanted: Sequence[dict[str, Tensor]], retain_graph: bool) -> list[dict[str, Tensor]]:
    """The gradients of each loss with respect to its own wanted parameters, by name; those that autograd calls None are left out.

    Args:
        losses: n scalars.
        roots: the gradient each starts from (its weight).
        wanted: for each loss the parameters its graph reaches.
        retain_graph: whether the graphs are still needed afterwards; otherwise they are freed with the last pass.
    """
    last = max((i for i, inputs in enumerate(wanted) if inputs), default=-1)
    gradients: list[dict[str, Tensor]] = []
    for i, (loss, root, inputs) in enumerate(zip(losses, roots, wanted, strict=True)):
        if not inputs:
            gradients.append({})
            continue
        with several_passes():
            found = torch.autograd.grad(loss, list(inputs.values()), root, retain_graph=retain_graph or i != last, allow_unused=True)
        gradients.append({name: g for name, g in zip(inputs, found, strict=True) if g is not None})
    return gradients


def gather_sum(losses: Sequence[Tensor], roots: Sequence[Tensor], wanted: dict[str, Tensor], retain_graph: bool) -> dict[str, Tensor]:
    """The gradient of the weighted sum of all losses, in one pass."""
    if not wanted:
        return {}
    with several_passes():
        found = torch.autograd.grad(list(losses), list(wanted.values()), list(roots), retain_graph=retain_graph, allow_unused=True)
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}

"""Factored gradients compared with autograd's: whether Δᵀx is what a weight would have got."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gradsurgery.gradients.factored import Layer
from gradsurgery.gradients.precision import products_are_whole

REDUCED = 1e-3  # the rounding of float32 products where a device may make them in fewer bits


@torch.no_grad()
def compared(
    deltas: Mapping[str, Tensor], given: Mapping[str, Tensor], layers: Mapping[str, Layer]
) -> tuple[list[str], list[str]]:
    """The weights for which factors and autograd's own gradient differ, and those that agree.

    What is zero or not finite decides nothing.

    Args:
        deltas: name -> the gradient at the layer's output.
        given: name -> the gradient that autograd gave the weight.
        layers: the layers by the names of their weights.
    """
    both = [name for name in layers if name in deltas and name in given]
    odd = [name for name in layers if (name in deltas) != (name in given)]
    agreeing = []
    by_device: dict[torch.device, list[Tensor]] = {}
    for name in both:
        found = _difference(layers[name], deltas[name], given[name])
        by_device.setdefault(found.device, []).append(found)
    arrived = {device: iter(torch.stack(found).tolist()) for device, found in by_device.items()}
    for name in both:
        difference, bound = next(arrived[given[name].device])
        if difference > bound:
            odd.append(name)
        elif difference <= bound and bound > 0:
            agreeing.append(name)
    return odd, agreeing


def _difference(layer: Layer, delta: Tensor, gradient: Tensor) -> Tensor:
    """How far apart both are, multiplied with a vector of signs, and how far rounding may go.

    Terms are rounded one by one, sums as they grow.
    """
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    own = gradient.flatten(1).to(torch.promote_types(gradient.dtype, torch.float32))  # [out, in]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, own.shape[1:], generator=generator).mul_(2).sub_(1).to(own.device)
    rows = layer.rows(delta).to(wide)
    projected, squares = layer.project(signs.to(wide))
    difference = (own @ signs.to(own.dtype)).to(wide) - rows.T @ projected
    length = (rows.square().sum(1) @ squares).sqrt()
    terms = len(rows) + own.shape[1]
    relative = 8 * _rounding(gradient) + torch.finfo(own.dtype).eps * terms**0.5
    return torch.stack([difference.norm(), relative * length])


def _rounding(gradient: Tensor) -> float:
    exact = gradient.dtype != torch.float32 or (gradient.is_cpu and products_are_whole())
    return torch.finfo(gradient.dtype).eps if exact else REDUCED

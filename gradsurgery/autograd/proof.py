"""Tapped layers compared with autograd: whether Δᵀx is the gradient that the weight would have been given."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gradsurgery.autograd.taps import Tap
from gradsurgery.objectives import products_are_whole

REDUCED = 1e-3  # the rounding of float32 products where a device may make them in fewer bits


@torch.no_grad()
def disagreeing(heard: Mapping[str, Tensor], given: Mapping[str, Tensor], taps: Mapping[str, Tap]) -> list[str]:
    """The weights for which the gradients at the layer's output [rows, out] do not make the gradients that autograd gave [out, in].

    What is not finite decides nothing. Whoever finds a layer equal is remembered in the taps' `proved`, and so is who does not.
    """
    both = [name for name in taps if name in heard and name in given]
    odd = [name for name in taps if (name in heard) != (name in given)]
    by_device: dict[torch.device, list[Tensor]] = {}
    for name in both:
        by_device.setdefault(given[name].device, []).append(_difference(heard[name], taps[name].inputs, given[name]))
    arrived = {device: iter(torch.stack(found).tolist()) for device, found in by_device.items()}
    for name in both:
        difference, bound = next(arrived[given[name].device])
        if difference > bound:
            odd.append(name)
        elif difference <= bound:
            taps[name].proved[name] = True
    for name in odd:
        taps[name].proved[name] = False
    return odd


def _difference(delta: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
    """How far apart both are when multiplied with a vector of signs, and how far rounding may bring them: terms are rounded one by one, sums as they grow."""
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    signs = torch.randint(2, (inputs.shape[1],), generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1).to(gradient.device)
    own = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    d, x = delta.to(wide), inputs.to(wide)
    difference = (own @ signs.to(own.dtype)).to(wide) - d.T @ (x @ signs.to(wide))
    squares = d.square().sum(1) @ x.square().sum(1)
    return torch.stack([difference.norm(), (8 * _rounding(gradient) + torch.finfo(own.dtype).eps * sum(inputs.shape) ** 0.5) * squares.sqrt()])


def _rounding(gradient: Tensor) -> float:
    exact = gradient.dtype != torch.float32 or (gradient.device.type == "cpu" and products_are_whole())
    return torch.finfo(gradient.dtype).eps if exact else REDUCED

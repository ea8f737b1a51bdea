"""Tapped layers compared with autograd: whether Δᵀx is what the weight would have been given."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gradsurgery.engine.taps import Tap
from gradsurgery.gradients.precision import products_are_whole

REDUCED = 1e-3  # the rounding of float32 products where a device may make them in fewer bits


@torch.no_grad()
def compared(
    deltas: Mapping[str, Tensor], given: Mapping[str, Tensor], taps: Mapping[str, Tap]
) -> tuple[list[str], list[str]]:
    """The weights for which Δ [rows, out] does not make the gradient that autograd gave [out, in], and those for which it does.

    What is zero or not finite decides nothing. The taps' `proved` remembers the first.
    """
    both = [name for name in taps if name in deltas and name in given]
    odd = [name for name in taps if (name in deltas) != (name in given)]
    agreeing = []
    by_device: dict[torch.device, list[Tensor]] = {}
    for name in both:
        by_device.setdefault(given[name].device, []).append(
            _difference(deltas[name], taps[name].inputs, given[name])
        )
    arrived = {device: iter(torch.stack(found).tolist()) for device, found in by_device.items()}
    for name in both:
        difference, bound = next(arrived[given[name].device])
        if difference > bound:
            odd.append(name)
        elif difference <= bound and bound > 0:
            agreeing.append(name)
    for name in odd:
        taps[name].proved[name] = False
    return odd, agreeing


def _difference(delta: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
    """How far apart both are, multiplied with a vector of signs, and how far rounding may bring them.

    Terms are rounded one by one, sums as they grow.
    """
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    generator = torch.Generator().manual_seed(0)
    signs = (
        torch.randint(2, inputs.shape[1:], generator=generator).mul_(2).sub_(1).to(gradient.device)
    )
    own = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    d, x = delta.to(wide), inputs.to(wide)
    difference = (own @ signs.to(own.dtype)).to(wide) - d.T @ (x @ signs.to(wide))
    length = (d.square().sum(1) @ x.square().sum(1)).sqrt()
    relative = 8 * _rounding(gradient) + torch.finfo(own.dtype).eps * sum(inputs.shape) ** 0.5
    return torch.stack([difference.norm(), relative * length])


def _rounding(gradient: Tensor) -> float:
    exact = gradient.dtype != torch.float32 or (
        gradient.device.type == "cpu" and products_are_whole()
    )
    return torch.finfo(gradient.dtype).eps if exact else REDUCED

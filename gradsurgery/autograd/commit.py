"""Everything into .grad at once, or nothing; then the post-accumulate hooks, as torch fires them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.errors import InputError
from gradsurgery.ownership import exclusive


def owned(gradients: list[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients that may become `.grad`: those that autograd made for us alone, and nothing but this list holds; copies of the others.

    Like torch's own accumulation, this takes a gradient over only when nobody else holds it and its layout fits.
    """
    out: list[Tensor] = []
    for i, parameter in enumerate(parameters):
        if gradients[i].layout != torch.strided:
            out.append(gradients[i].clone())
            continue
        mine = exclusive(gradients, i, parameter)
        if mine is None:
            mine = torch.empty_like(parameter, dtype=gradients[i].dtype).copy_(gradients[i])
        out.append(mine)
    return out


@torch.no_grad()
def write(results: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Accumulate directions into `.grad`: all of them, or an exception and none.

    Raises:
        InputError: when an existing `.grad` cannot take the direction.
    """
    fresh = [(p, d) for p, d in results if p.grad is None]
    old = [(p.grad, d) for p, d in results if p.grad is not None]
    for grad, direction in old:
        if grad.layout == torch.strided and any(step == 0 and size > 1 for step, size in zip(grad.stride(), grad.shape, strict=True)):
            raise InputError(f"a parameter's .grad of shape {list(grad.shape)} is expanded, several entries in one place: set it to None first.")
        fits = grad.device == direction.device and grad.shape == direction.shape
        if not fits or not _takes(grad, direction) or grad.is_inference():
            raise InputError(
                f"a parameter's .grad ({grad.dtype}, {grad.layout}, {list(grad.shape)} on "
                f"{grad.device}) cannot take a gradient ({direction.dtype}, {direction.layout}) of "
                f"shape {list(direction.shape)} on {direction.device}: set it to None first "
                "(optimizer.zero_grad())."
            )
    started: list[Tensor] = []
    try:
        for parameter, direction in fresh:
            started.append(parameter)
            parameter.grad = direction
        if old:
            # One call into torch, the last of the block: from here on the step stands.
            torch._foreach_add_([grad for grad, _ in old], [direction for _, direction in old])
    except BaseException:
        for parameter in started:
            parameter.grad = None
        raise


def _takes(grad: Tensor, direction: Tensor) -> bool:
    """Whether torch can add the second to the first in place, in a dtype that holds the sum.

    A sparse one can be added to either, a dense one to a dense one.
    """
    if grad.dtype != direction.dtype and not torch.can_cast(direction.dtype, grad.dtype):
        return False
    if grad.dtype.itemsize == 1 or direction.dtype.itemsize == 1:  # float8 has no sums
        return False
    if grad.layout == torch.sparse_coo:
        return direction.layout == torch.sparse_coo and grad.sparse_dim() == direction.sparse_dim()
    return grad.layout == torch.strided


def fire_hooks(parameters: Sequence[Tensor]) -> None:
    """The hooks of `register_post_accumulate_grad_hook`, once per parameter that got a gradient."""
    for parameter in parameters:
        hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
        for hook in list(hooks.values()) if hooks else ():
            hook(parameter)

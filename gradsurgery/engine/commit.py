"""Everything into .grad at once, or nothing; then the post-accumulate hooks, as in torch."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.parallel.dtensor import local_of
from gradsurgery.errors import InputError

SET_GRAD = torch.Tensor.grad.__set__  # type: ignore[union-attr]  # a slot of C; the stubs see what instances have


def at_once(calls: Iterable[partial[Any]]) -> None:
    """Make these calls of C functions one after the other, from C.

    Signal handlers run before the first or after the last: Python runs the handler of Ctrl-C
    between two of its own instructions, and there are none between these calls.
    """
    deque(map(partial.__call__, calls), 0)


@torch.no_grad()
def write(results: Sequence[tuple[Tensor, Tensor]], owner: object, **attributes: Any) -> None:
    """Accumulate directions into `.grad` and set attributes of `owner`: all, or none.

    An exception from outside, as Ctrl-C is, comes before or after everything.

    Raises:
        InputError: when an existing `.grad` cannot take the direction.
    """
    parameters: list[Tensor] = []
    fresh: list[Tensor] = []
    old: list[Tensor] = []
    added: list[Tensor] = []
    for parameter, direction in results:
        grad = parameter.grad
        if grad is None:
            parameters.append(parameter)
            fresh.append(direction)
        else:
            check_takes(grad, direction)
            plain = type(grad) is Tensor  # else a DTensor: one call takes no mixture of both
            old.append(grad if plain else local_of(grad))
            added.append(direction if plain else local_of(direction))
    done: list[bool] = []
    calls: list[partial[Any]] = [partial(torch._foreach_add_, old, added)] if old else []
    if fresh:
        calls.append(partial(deque, map(SET_GRAD, parameters, fresh), 0))
    calls += (
        partial(vars(owner).update, attributes),
        partial(done.append, True),
    )  # what cannot fail comes last
    try:
        deque(map(partial.__call__, calls), 0)  # `at_once`, without a call more
    except BaseException:
        if not done:  # what raised was one of the calls, or nothing has begun
            at_once([partial(deque, map(SET_GRAD, parameters, repeat(None)), 0)])
        raise


def check_takes(grad: Tensor, direction: Tensor) -> None:
    """An existing `.grad` can take a direction.

    Raises:
        InputError: where it cannot.
    """
    if grad.layout == torch.strided and any(
        step == 0 and size > 1 for step, size in zip(grad.stride(), grad.shape, strict=True)
    ):
        raise InputError(
            f"a parameter's .grad of shape {list(grad.shape)} is expanded, several entries in one "
            "place: set it to None first."
        )
    fits = grad.device == direction.device and grad.shape == direction.shape
    if not fits or not _takes(grad, direction) or grad.is_inference():
        raise InputError(
            f"a parameter's .grad ({grad.dtype}, {grad.layout}, {list(grad.shape)} on "
            f"{grad.device}) cannot take a gradient ({direction.dtype}, {direction.layout}) of "
            f"shape {list(direction.shape)} on {direction.device}: set it to None first "
            "(optimizer.zero_grad())."
        )


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

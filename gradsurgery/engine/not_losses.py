"""What to say of values that are no losses, and what to do with them."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.errors import InputError


def what_is_wrong(losses: Mapping[str, Any], dtypes: Collection[torch.dtype]) -> str:
    """What is wrong with the first of these that cannot be taken.

    Args:
        losses: by name; one of them is no scalar tensor of these dtypes that requires grad, lies on
            another device, or has a name that is no string.
        dtypes: those that losses may have.
    """
    first, *_ = losses
    for name in losses:
        if not isinstance(name, str):
            return f"losses: the names are strings; got {name!r}."
    for name, loss in losses.items():
        if not isinstance(loss, Tensor):
            nested = all(isinstance(part, list | tuple) for part in losses.values())
            hint = " For independent batches give one dict of losses per batch." if nested else ""
            return f"loss {name!r}: {_not_a_tensor(loss)}{hint}"
        if loss.numel() != 1:
            return f"loss {name!r}: {_not_one_element(loss)}{_by_example(losses)}"
        if loss.dtype not in dtypes:
            hint = " Widen it first: loss.float()." if loss.is_floating_point() else ""
            if not loss.requires_grad:
                hint = " A number that nothing trainable reaches is no loss: leave it out."
            wanted = "expected real floating point of 16 bits or more"
            return f"loss {name!r}: {wanted}; got {loss.dtype}.{hint}"
        if not loss.requires_grad:
            return (
                f"loss {name!r} does not require grad: nothing trainable reaches it (detached, or "
                "computed under no_grad?). Leave it out."
            )
        if loss.device != losses[first].device:
            break
    return (
        f"loss {name!r} is on {loss.device}, {first!r} on {losses[first].device}: move them to one "
        "device first."
    )


def _not_a_tensor(loss: Any) -> str:
    kind = type(loss).__name__
    if isinstance(loss, Mapping | list | tuple | set | frozenset):
        if len(loss) == 0:
            return f"got an empty {kind}: leave it out."
        inside, values = ("its values", "d.values()") if isinstance(loss, Mapping) else LEVELS
        return (
            f"expected a scalar tensor; got a {kind} of {len(loss)}. Sum {inside}, for example "
            f"with sum({values}), or give each a name of its own."
        )
    if loss is None:
        return "expected a scalar tensor; got None: leave it out."
    if isinstance(loss, int | float | complex | np.generic | np.ndarray):
        shown = f" {loss!r}" if np.ndim(loss) == 0 else ""
        return (
            f"expected a scalar tensor; got {kind}{shown}, which has no gradient: leave it out. "
            "(A loss that has one is a tensor, without .item(), float() or .numpy().)"
        )
    return f"expected a scalar tensor; got {kind}."


LEVELS = "the levels", "levels"  # as detection models give a loss per level of their features


def _not_one_element(loss: Tensor) -> str:
    shape = list(loss.shape)
    if loss.numel() == 0:
        return f"expected a scalar; got shape {shape}, which has no elements: leave it out."
    return (
        f"expected a scalar; got shape {shape}. Reduce it first, for example with .mean(), or give "
        "each element a name of its own: {f'name.{i}': x for i, x in enumerate(loss.flatten())}."
    )


def _by_example(losses: Mapping[str, Any]) -> str:
    """What else losses may be that have all one shape [B]."""
    shapes = [list(loss.shape) if isinstance(loss, Tensor) else None for loss in losses.values()]
    if len(shapes[0] or ()) != 1 or any(shape != shapes[0] for shape in shapes):
        return ""
    return (
        " Where these are one tensor of losses by example under several weights, one pass does: "
        "gs.PerExample(losses, {name: weights})."
    )


def check_first_order(create_graph: bool) -> None:
    """Refuse a graph of the direction.

    Raises:
        InputError: where one is asked for.
    """
    if create_graph:
        raise InputError(
            "create_graph: a direction is not differentiable. A penalty on a loss's gradient "
            "is a loss of its own: torch.autograd.grad(..., create_graph=True) gives it."
        )

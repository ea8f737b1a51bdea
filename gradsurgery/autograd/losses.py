"""The losses of one step: names, scalars, and the user's own weights for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.errors import InputError
from gradsurgery.registry import by_objective

LossesLike = Mapping[str, Tensor] | Sequence[Tensor] | Tensor


@dataclass(frozen=True)
class Losses:
    """n named scalars that require grad, and the user's weight of each [n]."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    weights: NDArray[np.float64]


def parse_losses(losses: LossesLike, weights: Any = None) -> Losses:
    """Check the losses and bring them into one form.

    Raises:
        InputError: for no losses, something that is not a real scalar tensor, one that does not require grad, losses
            on different devices, or weights that do not fit; the message names the loss.
    """
    names: tuple[str, ...]
    if isinstance(losses, Mapping):
        wrong = [k for k in losses if not isinstance(k, str)]
        if wrong:
            raise InputError(f"losses: the names are strings; got {wrong[0]!r}.")
        names, tensors = tuple(losses), tuple(losses.values())
    elif isinstance(losses, Tensor):
        if losses.ndim != 1:
            raise InputError(f"losses: a tensor of losses has one dimension; got shape {list(losses.shape)}. A single loss goes in a list or dict.")
        names, tensors = tuple(map(str, range(len(losses)))), tuple(losses.unbind())
    elif isinstance(losses, Sequence) and not isinstance(losses, str | bytes):
        names, tensors = tuple(map(str, range(len(losses)))), tuple(losses)
    else:
        raise InputError(f"losses: expected a dict of name -> scalar, a sequence of scalars, or a 1-d tensor; got {type(losses).__name__}.")
    if not names:
        raise InputError("losses: at least one is needed; got none.")
    for name, loss in zip(names, tensors, strict=True):
        if not isinstance(loss, Tensor):
            raise InputError(f"loss {name!r}: expected a scalar tensor; got {type(loss).__name__}.")
        if loss.numel() != 1:
            raise InputError(f"loss {name!r}: expected a scalar; got shape {list(loss.shape)}. Reduce it first, for example with .mean().")
        if not loss.is_floating_point():
            raise InputError(f"loss {name!r}: expected real floating point; got {loss.dtype}.")
        if not loss.requires_grad:
            raise InputError(f"loss {name!r} does not require grad: nothing trainable reaches it (detached, or computed under no_grad?). Leave it out.")
        if loss.device != tensors[0].device:
            raise InputError(f"loss {name!r} is on {loss.device}, {names[0]!r} on {tensors[0].device}: move them to one device first.")
    return Losses(names, tensors, by_objective("weights", weights, names, 1.0 if weights is None else None))


def root_gradients(losses: Losses, weights: NDArray[np.float64]) -> list[Tensor]:
    """The gradient each loss starts its backward pass with: its weight."""
    return [torch.full_like(t, w) for t, w in zip(losses.tensors, weights.tolist(), strict=True)]

"""What to say of losses, weights and names that are not what PerExample takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def got_losses(losses: Any) -> str:
    """What was given in place of losses [B] or [B, T], and what to do."""
    if not isinstance(losses, Tensor):
        got = f"got {type(losses).__name__}."
        if isinstance(losses, list | tuple) and all(isinstance(x, Tensor) for x in losses):
            got += " Put it in one tensor: torch.stack(losses)."
        return got
    shape = list(losses.shape)
    if losses.numel() and losses.ndim == 0:
        return (
            "got one number, as a mean or a sum is. Compute the loss with reduction='none'; the "
            "weights of the mixtures take the place of the reduction."
        )
    if losses.numel() and losses.ndim > 2:
        return f"got {shape}. Sum or average what belongs to one example: losses.flatten(1).sum(1)."
    return f"got {shape}."


def got_weights(weights: Sequence[int], losses: Sequence[int]) -> str:
    """What to do about weights of another shape than the losses.

    Args:
        weights: the shape of the weights.
        losses: the shape of the losses.
    """
    own, given = list(losses), list(weights)
    if len(own) == 1 and len(given) == 2 and given[0] * given[1] == own[0] and given[1] > 1:
        return (
            f"the losses of {given[0]} examples of {given[1]} tokens each are flat; give "
            f"losses.view({given[0]}, {given[1]}) (or .view({given[1]}, {given[0]}).T, where the "
            "tokens were first)."
        )
    if len(own) == 2 and given == own[::-1]:
        return "examples are first in the losses, [B, T]: give losses.T."
    if len(own) == 2 and given in ([own[0]], [own[0], 1]) and own[0] != own[1]:
        return (
            "give one weight per token, weight.view(-1, 1).expand_as(losses), or one loss per "
            "example, losses.sum(1)."
        )
    if len(own) == 2 and given in ([own[1]], [1, own[1]]) and own[0] != own[1]:
        return (
            "examples are first in the losses, [B, T]. Where the tokens are first give "
            "losses.T, with one weight per token."
        )
    if len(own) == 1 and len(given) == 1 and given[0] > 1 and not own[0] % given[0]:
        return (
            f"give one weight per loss. Where the losses are those of {own[0] // given[0]} tokens "
            f"of {given[0]} examples each, and flat, give losses.view({given[0]}, -1).sum(1)."
        )
    return "give one weight per loss."


def odd_weights(weights: Any) -> str | None:
    """What weights are that have no real number in each place, and what to do."""
    if isinstance(weights, Tensor):
        if weights.is_meta:
            return "a meta tensor, which has no values: give them on a device."
        if weights.layout != torch.strided:
            return f"a sparse tensor ({weights.layout}): give weights.to_dense()."
        kind = str(weights.dtype) if weights.is_complex() else ""
    else:
        kind = str(weights.dtype) if np.iscomplexobj(weights) and hasattr(weights, "dtype") else ""
    return f"complex ({kind}); a mixture has real weights: give weights.real." if kind else None


def got_names(names: Any, found: Sequence[Any]) -> str:
    """What was given in place of one string per example, and what to do."""
    odd = next((name for name in found if not isinstance(name, str)), None)
    if isinstance(names, str):
        return f"got the string {names!r}: give a list of names."
    if odd is not None:
        kind = type(odd).__name__
        return f'got {odd!r}, a {kind}: give list(map(str, names)), or none for "0" to "B−1".'
    return f"got {len(found)}, of them {len(set(found))} different."

"""Under a GradScaler: losses come plain, gradients are scaled on the way, and an overflow reaches the scaler."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.errors import InputError


def scale_of(scaler: Any, like: Tensor) -> Tensor | None:
    """The scaler's factor as a float32 scalar on the losses' device; None without a scaler, or with one that is off.

    Raises:
        InputError: when it is no GradScaler.
    """
    if scaler is None:
        return None
    if not callable(getattr(scaler, "scale", None)) or not callable(getattr(scaler, "is_enabled", None)):
        raise InputError(f"scaler: expected a torch.amp.GradScaler; got {type(scaler).__name__}.")
    if not scaler.is_enabled():
        return None
    scale: Tensor = scaler.scale(torch.ones((), dtype=torch.float32, device=like.device)).detach()
    return scale


def overflow(parameters: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Infinity for every parameter, so that each optimizer's step is skipped and the scale is lowered."""
    return [(p, torch.full_like(p, torch.inf)) for p in parameters]


def one_scale(scales: Sequence[float]) -> float:
    """The factor that all gradients of a step came with.

    Raises:
        InputError: when the scaler was updated between micro-batches.
    """
    if len(set(scales)) > 1:
        numbers = ", ".join(f"{scale:g}" for scale in scales)
        raise InputError(f"the scaler's factor changed between micro-batches ({numbers}): call scaler.update() once a step, after combine() and scaler.step().")
    return scales[0]

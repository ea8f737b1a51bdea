"""Under a GradScaler: plain losses, scaled gradients, and overflow that reaches the scaler."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.refusals import unwrapped
from gradsurgery.errors import InputError
from gradsurgery.gradients.coordinates import gradient_dtype


def is_on(scaler: Any) -> bool:
    """Whether there is a scaler, and it is on.

    Raises:
        InputError: when it is no GradScaler.
    """
    if scaler is None:
        return False
    if not callable(getattr(scaler, "scale", None)) or not callable(
        getattr(scaler, "is_enabled", None)
    ):
        raise InputError(f"scaler: expected a torch.amp.GradScaler; got {type(scaler).__name__}.")
    return bool(scaler.is_enabled())


def scale_of(scaler: Any, like: Tensor | None = None) -> Tensor | None:
    """The loss scale as a float32 scalar on the losses' device; None without a scaler that is on.

    Raises:
        InputError: when it is no GradScaler.
    """
    if not is_on(scaler):
        return None
    device = None if like is None else like.device
    scale: Tensor = scaler.scale(torch.ones((), dtype=torch.float32, device=device)).detach()
    return scale


def check_scaled(scaler: Any, optimizer: torch.optim.Optimizer) -> None:
    """Gradients that a scaler has unscaled take no more of them.

    Raises:
        InputError: when `scaler.unscale_(optimizer)` was called since the last update, or for what
            is no GradScaler.
    """
    if is_on(scaler) and _unscaled(scaler, optimizer):
        raise InputError(
            "scaler: its last unscale_ for this optimizer was not followed by scaler.update(): "
            "call that after every step(), and leave unscale_ to step(), which adds scaled "
            "gradients."
        )


def _unscaled(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether it was; torch says it nowhere else."""
    states = getattr(scaler, "_per_optimizer_states", None)
    stage = states[id(optimizer)].get("stage") if states and id(optimizer) in states else None
    return getattr(stage, "name", "READY") != "READY"


def unscale(scaler: Any, optimizer: torch.optim.Optimizer) -> None:
    """Divide `.grad` by the loss scale, unless the caller (a hook, say) has done it."""
    if is_on(scaler) and not _unscaled(scaler, optimizer):
        scaler.unscale_(optimizer)


def step_under(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """The optimizer's step, through a scaler if there is one: whether it was made."""
    if scaler is None:
        optimizer.step()
        return True
    made: list[bool] = []
    handle = unwrapped(optimizer).register_step_post_hook(lambda *_: made.append(True))
    try:
        scaler.step(optimizer)
    finally:
        handle.remove()
    return bool(made)


def overflow(
    parameters: Iterable[Tensor],
    sparse: Collection[int] = (),
) -> list[tuple[Tensor, Tensor]]:
    """Infinity for every parameter: the scaler skips the optimizer's step, and lowers the scale.

    Where gradients are sparse it is one row.

    Args:
        parameters: the parameters.
        sparse: the ids of those whose gradients are sparse.
    """
    return [(p, _infinite(p, id(p) in sparse)) for p in parameters]


def _infinite(parameter: Tensor, sparse: bool) -> Tensor:
    dtype, device, grad = gradient_dtype(parameter), parameter.device, parameter.grad
    before = grad is not None and grad.layout == torch.sparse_coo  # takes no dense one
    if not (sparse or before):
        return torch.full_like(parameter, torch.inf, dtype=dtype)
    dims = grad.sparse_dim() if grad is not None and before else 1
    shape = parameter.shape
    count = min(1, *shape[:dims])  # no row of a parameter that has none
    indices = torch.zeros(dims, count, dtype=torch.int64, device=device)
    values = torch.full((count, *shape[dims:]), torch.inf, dtype=dtype, device=device)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False)


def one_scale(scales: Sequence[float]) -> float:
    """The factor that all gradients of a step came with.

    Raises:
        InputError: when the scaler was updated between micro-batches.
    """
    if len(set(scales)) > 1:
        numbers = ", ".join(f"{scale:g}" for scale in scales)
        raise InputError(
            f"the scaler's factor changed between micro-batches ({numbers}): call scaler.update() "
            "once a step, after combine() and scaler.step()."
        )
    return scales[0]

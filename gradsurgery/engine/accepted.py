"""Which optimizers `Surgery.step` accepts."""

from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradsurgery.engine.metric import held_by
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.refusals import needing_closure, refused, unwrapped
from gradsurgery.errors import InputError

CLOSURE = (
    "surgery.step has no closure to give. Call its step(closure) yourself, where the closure calls "
    "zero_grad() and surgery.backward(losses) and returns the sum of the losses"
)
# Its line search compares the slope along the direction with a loss that has this gradient.
SEARCH = "; leave line_search_fn=None, as no loss has the combined direction as its gradient"


def check_optimizer(optimizer: Any, guard: str = "correct", solved_in: str = "euclidean") -> None:
    """Refuse an optimizer that cannot step here, or whose step cannot be corrected.

    Args:
        optimizer: the user's.
        guard: "off" refuses what cannot step without a closure; the others also what keeps other
            iterates than the parameters, and "correct" what ascends.
        solved_in: the setting `metric` of the step: "optimizer" refuses what ascends too.

    Raises:
        InputError: for what is no optimizer; for one whose step needs a closure, that keeps other
            iterates than the parameters (an average, a slow copy, weights in float32), or that
            switches the parameters between two iterates by `train()` and `eval()`.
    """
    kind = type(optimizer).__name__
    if isinstance(optimizer, LRScheduler):
        raise InputError(
            f"optimizer: {kind} is a scheduler of learning rates; give the optimizer, "
            "and call the scheduler's step() yourself."
        )
    own = unwrapped(optimizer)
    if not isinstance(own, Optimizer):
        raise InputError(f"optimizer: expected one torch.optim.Optimizer; got {kind}.")
    ascent = "guard='correct'" if guard == "correct" else "metric='optimizer'"
    if guard == "correct" or solved_in == "optimizer":
        for group in own.param_groups:
            if said := _ascends(group):
                raise InputError(
                    f"optimizer: {kind} has {said}, and {ascent} would undo the ascent: minimise "
                    "the negative losses, or leave it out."
                )
    if said := needing_closure(optimizer):
        search = SEARCH if isinstance(own, LBFGS) else ""
        raise InputError(f"optimizer: {said}, and {CLOSURE}{search}.")
    if guard != "off" and (said := refused(optimizer)):
        raise InputError(
            f"optimizer: {said}; its step cannot be guarded. Use guard='off', or call "
            "surgery.backward(...), and its step yourself."
        )


def _ascends(group: dict[str, Any]) -> str | None:
    """By what a param group ascends. A rate on a device is read: what is guarded waits for it."""
    if group.get("maximize"):
        return "maximize=True"
    rate = group.get("lr")
    number = float(rate) if isinstance(rate, Tensor | int | float) else 0.0
    return f"lr={number:g}" if number < 0 else None


def check_held(optimizer: Any, parameters: Parameters) -> None:
    """Refuse the optimizer of another model.

    Raises:
        InputError: where it holds none of the parameters that were given to the Surgery.
    """
    own, held = parameters.named(), held_by(unwrapped(optimizer))
    if own and not any(key in held for key in own):
        raise InputError(
            f"optimizer: {type(optimizer).__name__} holds none of the {len(own)} trainable "
            "parameters that Surgery was given: give the optimizer of this model, made of "
            "model.parameters() as they are now."
        )

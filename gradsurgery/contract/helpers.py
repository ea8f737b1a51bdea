"""Steps of quantities that a strategy learns: they live in its state, and need nothing from the user's optimizer."""

import math
from typing import Literal

import numpy as np

from gradsurgery.contract.state import Array, State
from gradsurgery.errors import warn

Optimizer = Literal["adam", "sgd"]
BETAS = (0.9, 0.999)
EPSILON = 1e-8
UNDERFLOW = 1e-9  # of a weight that began near one
TAKES_PART = 1e-3  # of its product with the loss


def descend(
    state: State,
    name: str,
    value: Array,
    slope: Array,
    lr: float,
    optimizer: Optimizer = "adam",
    weight_decay: float = 0.0,
    longest: float = math.inf,
) -> Array:
    """The value after one step against its slope; the optimizer's moments are kept in the state under the value's name.

    "adam" is Adam (Kingma & Ba 2015) with torch's defaults, "sgd" plain gradient descent; weight decay is added to the slope,
    as torch does. Each objective counts its own steps, so that one that comes later is corrected for its own bias.

    Args:
        state: the strategy's, bound to this step.
        name: of the value.
        value: what is learned [n].
        slope: its gradient [n].
        lr: the learning rate.
        optimizer: "adam" or "sgd".
        weight_decay: added to the slope, times the value.
        longest: the most that any entry moves.
    """
    slope = slope + weight_decay * value
    if optimizer == "sgd":
        return np.asarray(value - _bounded(lr * slope, longest))
    first, second, count = (
        state.vector(f"{name}/{part}", 0.0) for part in ("first moment", "second moment", "steps")
    )
    count += 1
    first[:] = BETAS[0] * first + (1 - BETAS[0]) * slope
    second[:] = BETAS[1] * second + (1 - BETAS[1]) * slope**2
    corrected = first / (1 - BETAS[0] ** count)
    moved = lr * corrected / (np.sqrt(second / (1 - BETAS[1] ** count)) + EPSILON)
    return np.asarray(value - _bounded(moved, longest))


def _bounded(step: Array, longest: float) -> Array:
    return step if abs(step).max() <= longest else np.clip(step, -longest, longest)


def warn_of_underflow(
    strategy: str,
    state: State,
    weights: Array,
    losses: Array,
    steps: int,
) -> None:
    """Warn of an objective whose learned weight w has sunk so far that it takes no part.

    Args:
        strategy: the strategy's name.
        state: its state, bound to this step, for the objectives' names.
        weights: w [n].
        losses: L [n].
        steps: how many steps a weight needs at least to grow by a factor of e.
    """
    if weights.min() >= UNDERFLOW:
        return
    lost = (weights < UNDERFLOW) & (weights * np.abs(losses) < TAKES_PART) & (losses != 0)
    if lost.any():
        i = int(np.argmax(lost))
        warn(
            f"strategy {strategy!r}: the weight of {state.objectives[i]!r} is {weights[i]:.1e} at "
            f"a loss of {losses[i]:.3g}, so that it takes no part, and it grows by a factor of e "
            f"in {steps} steps at best. Begin with a new state and a smaller loss, or raise lr."
        )

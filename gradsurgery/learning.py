"""Steps of quantities that a strategy learns: they live in its state, and need nothing from the user's optimizer."""

from typing import Literal

import numpy as np

from gradsurgery.state import Array, State

Optimizer = Literal["adam", "sgd"]
BETAS = (0.9, 0.999)
EPSILON = 1e-8


def descend(state: State, name: str, value: Array, slope: Array, lr: float, optimizer: Optimizer = "adam", weight_decay: float = 0.0) -> Array:
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
    """
    slope = slope + weight_decay * value
    if optimizer == "sgd":
        return np.asarray(value - lr * slope)
    first, second, count = (state.vector(f"{name}/{part}", 0.0) for part in ("first moment", "second moment", "steps"))
    count += 1
    first[:] = BETAS[0] * first + (1 - BETAS[0]) * slope
    second[:] = BETAS[1] * second + (1 - BETAS[1]) * slope**2
    corrected = first / (1 - BETAS[0] ** count)
    return np.asarray(value - lr * corrected / (np.sqrt(second / (1 - BETAS[1] ** count)) + EPSILON))

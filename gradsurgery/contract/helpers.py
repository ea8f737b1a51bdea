"""What the formulas of several strategies share: checks of their inputs, and learned quantities."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from gradsurgery.contract.state import State
from gradsurgery.errors import InputError, StrategyError, one_of, warn
from gradsurgery.types import Array

Optimizer = Literal["adam", "sgd"]
BETAS = (0.9, 0.999)
EPSILON = 1e-8
UNDERFLOW = 1e-9  # of a weight that began near one
TAKES_PART = 1e-3  # of its product with the loss


def positive_losses(
    where: str, losses: Array | None, objectives: Sequence[str] | None, above: float = 0.0
) -> Array:
    """The losses, which a formula needs to be positive (or above a bound).

    Raises:
        InputError: that names the first loss which is not.
        StrategyError: when there are no losses.
    """
    if losses is None:
        raise StrategyError(f"{where} needs the input 'losses': pass losses=.")
    if not (losses > above).all():
        i = int(np.argmin(losses > above))
        name = objectives[i] if objectives is not None else str(i)
        raise InputError(
            f"{where} needs losses above {above:g}; {name!r} is {losses[i]:.4g}: "
            "leave it out of losses in that step."
        )
    return losses


def losses_from_zero(
    where: str,
    losses: Array,
    objectives: Sequence[str],
    zero: float = 0.0,
) -> Array:
    """The losses, which a formula needs not to be negative; one of exactly zero counts as `zero`.

    Raises:
        InputError: that names the first loss which is negative.
    """
    if (losses < 0).any():
        i = int(np.argmax(losses < 0))
        given = f"{objectives[i]!r} is {losses[i]:.4g}"
        raise InputError(f"{where} needs losses of 0 or more; {given}.")
    return np.where(losses == 0, zero, losses) if zero else losses


def modality_score(
    name: str,
    scores: Mapping[str, float] | None,
    group: str,
    modality: Mapping[str, str] | None,
    positive: bool = True,
) -> tuple[float | None, list[float]]:
    """The score of a group's modality, and those of the other modalities.

    The first is None where the scores have none for the group.

    Args:
        name: the strategy's name, for the errors.
        scores: as the input of this name has them.
        group: the group's name.
        modality: {group: modality}, where their names differ.
        positive: whether every score has to be above 0.

    Raises:
        InputError: when there are no scores, fewer than two, or one that cannot be used, or when
            `modality` names one without a score.
    """
    if scores is None:
        raise InputError(
            f"strategy {name!r} needs a score per modality: "
            "surgery.backward(losses, scores={modality: number, ...})."
        )
    numbers = dict(scores)
    usable = all(np.isfinite(x) and (x > 0 or not positive) for x in numbers.values())
    if len(numbers) < 2 or not usable:
        kind = "positive" if positive else "finite"
        raise InputError(
            f"strategy {name!r}: expected {kind} scores of two or more modalities; got {numbers}."
        )
    own = (modality or {}).get(group, group)
    if own not in numbers:
        if group in (modality or {}):
            where = f"strategy {name!r}: group {group!r} has the "
            raise InputError(where + one_of("modality", own, numbers))
        return None, []
    return numbers[own], [value for key, value in numbers.items() if key != own]


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
    """A learned quantity after one step of gradient descent.

    "adam" is Adam (Kingma & Ba 2015) with torch's defaults, "sgd" plain gradient descent; weight
    decay is added to the gradient, as torch does. The moments are kept in the strategy's state
    under the quantity's name. Each objective counts its own steps: Adam's correction of the bias
    is right for one that comes later, too.

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
    if weight_decay:
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
    return step if max(map(abs, step.tolist())) <= longest else np.clip(step, -longest, longest)


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
    if min(weights.tolist()) >= UNDERFLOW:  # the usual case, without numpy's overhead
        return
    lost = (weights < UNDERFLOW) & (weights * np.abs(losses) < TAKES_PART) & (losses != 0)
    if lost.any():
        i = int(np.argmax(lost))
        warn(
            f"strategy {strategy!r}: the weight of {state.objectives[i]!r} is {weights[i]:.1e} at "
            f"a loss of {losses[i]:.3g}, so that it takes no part, and it grows by a factor of e "
            f"in {steps} steps at best. Begin with a new state and a smaller loss, or raise lr."
        )

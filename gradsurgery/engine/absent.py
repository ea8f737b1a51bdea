"""Objectives whose gradient is exactly zero in a group: absent, or kept with one warning."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.errors import GradSurgeryError, warn
from gradsurgery.gradients.scaled import Seen
from gradsurgery.solvers import at_rounding_floor, min_norm

Places = NDArray[np.intp]
# A direction this much shorter than its terms allow is none: approximate solvers leave 1e-6.
STOPPED = 1e-3


def present(matrix: Seen) -> Places | None:
    """The positions of the objectives whose gradient is not zero; None where that is all."""
    zero = matrix.zero
    return np.flatnonzero(~zero) if zero.any() else None


def rows_of(places: Places, matrix: Seen) -> list[int]:
    """The rows of the objectives at these positions, batch after batch."""
    n = matrix.count // matrix.batches
    return [b * n + i for b in range(matrix.batches) for i in places.tolist()]


def spread(outcome: Outcome, places: Places, n: int) -> Outcome:
    """The outcome for all n objectives, with a weight of zero for those that were absent."""
    if outcome.weights is None:
        return outcome
    weights = np.zeros((*outcome.weights.shape[:-1], n))
    weights[..., places] = outcome.weights
    return replace(outcome, weights=weights)


def warn_if_stopped(
    strategy: Strategy,
    group: str,
    names: Sequence[str],
    matrix: Seen,
    outcome: Outcome,
    first_step: Callable[[], Outcome],
    warned: set[str],
) -> None:
    """Warn, once per Surgery, where a gradient of zero leaves no direction and others would.

    A strategy that averages over steps stops slowly: it counts if its first step would be zero.

    Args:
        strategy: what was asked.
        group: the group's name.
        names: its matrix.
        matrix: their gradients.
        outcome: what the strategy returned.
        first_step: what it would return in a first step.
        warned: what was warned of before.
    """
    places = present(matrix)
    if places is None or not len(places):
        return
    rows = rows_of(places, matrix)
    block = matrix.gram[np.ix_(rows, rows)]
    shortest = min_norm(block).value
    if at_rounding_floor(block, shortest, matrix.eps):
        return  # the others are Pareto stationary by themselves
    least = float(np.sqrt(shortest @ block @ shortest))
    stopped = _is_none(outcome, matrix, least)
    remembers = "state" in strategy.inputs and "rows" not in strategy.inputs
    if not stopped and remembers and "fresh" not in warned:
        warned.add("fresh")  # asked once
        with contextlib.suppress(GradSurgeryError):  # a first step may refuse what this one takes
            stopped = _is_none(first_step(), matrix, least)
    if stopped:
        zero = ", ".join(repr(name) for i, name in enumerate(names) if i not in places)
        warned.add("zeros")
        warn(
            f"the gradient of objective {zero} is zero in group {group!r}, and those of the "
            f"others are not: strategy {strategy.name!r} then stops the whole group. Where an "
            "objective has nothing to say in a batch (no labels, a satisfied margin, a weight of "
            "0), leave it out of losses in that step, or use Surgery(..., zero='absent'). Said "
            "once."
        )


def _is_none(outcome: Outcome, matrix: Seen, least: float) -> bool:
    """Whether a direction is zero, beside the length of the others' min-norm point, `least`."""
    if outcome.weights is None:
        return outcome.direction is not None and not bool(outcome.direction.any())
    weights = outcome.weights
    if weights.ndim == 2 and matrix.batches == 1:
        square = float(np.einsum("ki,kij,kj->", weights, matrix.block_grams, weights))
        weights = np.abs(weights).max(0)
    else:
        weights = weights.reshape(-1)
        square = float(weights @ matrix.gram @ weights)
    return square <= (STOPPED * least * float(np.abs(weights).sum())) ** 2

"""Objectives whose gradient is exactly zero in a group: absent, or kept with one warning."""

import contextlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.solve import Step, solve
from gradsurgery.errors import GradSurgeryError, warn
from gradsurgery.gradients.matrix import Objectives
from gradsurgery.solvers import at_rounding_floor, min_norm

Places = NDArray[np.intp]
# A direction this much shorter than its terms allow is none: approximate solvers leave 1e-6.
STOPPED = 1e-3


def present(objectives: Objectives) -> Places | None:
    """The positions of the objectives whose gradient is not zero; None where that is all of them."""
    zero = objectives.zero
    return np.flatnonzero(~zero) if zero.any() else None


def rows_of(places: Places, objectives: Objectives) -> list[int]:
    """The rows of the objectives at these positions, batch after batch."""
    n = objectives.count // objectives.batches
    return [b * n + i for b in range(objectives.batches) for i in places.tolist()]


def spread(outcome: Outcome, places: Places, n: int) -> Outcome:
    """The outcome for all n objectives, with a weight of zero for those that were absent."""
    if outcome.weights is None:
        return outcome
    weights = np.zeros((*outcome.weights.shape[:-1], n))
    weights[..., places] = outcome.weights
    return replace(outcome, weights=weights)


def warn_if_stopped(
    step: Step,
    strategy: Strategy,
    values: dict[str, float],
    group: Group,
    names: tuple[str, ...],
    objectives: Objectives,
    outcome: Outcome,
) -> None:
    """Warn, once per Surgery, where a gradient of zero leaves no direction and others would.

    A strategy that averages over steps stops slowly: it counts if its first step would be zero.
    """
    places = present(objectives)
    if places is None or not len(places):
        return
    rows = rows_of(places, objectives)
    block = objectives.gram[np.ix_(rows, rows)]
    shortest = min_norm(block).value
    if at_rounding_floor(block, shortest, objectives.eps):
        return  # the others are Pareto stationary by themselves
    least = float(np.sqrt(shortest @ block @ shortest))
    stopped = _is_none(outcome, objectives, least)
    remembers = "state" in strategy.inputs and "rows" not in strategy.inputs
    if not stopped and remembers and "fresh" not in step.plan.told:
        step.plan.told.add("fresh")  # asked once
        fresh = replace(step, memory=replace(step.memory, states={}, waiting={}, step=0))
        with contextlib.suppress(
            GradSurgeryError
        ):  # a first step may refuse what this one does not
            first, _ = solve(fresh, strategy, values, group, names, objectives)
            stopped = _is_none(first, objectives, least)
    if stopped:
        zero = ", ".join(repr(name) for i, name in enumerate(names) if i not in places)
        step.plan.told.add("zeros")
        warn(
            f"the gradient of objective {zero} is zero in group {group.name!r}, and those of the "
            f"others are not: strategy {strategy.name!r} then stops the whole group. Where an "
            "objective has nothing to say in a batch (no labels, a satisfied margin, a weight of 0), "
            "leave it out of losses in that step, or use Surgery(..., zero='absent'). Said once."
        )


def _is_none(outcome: Outcome, objectives: Objectives, least: float) -> bool:
    """Whether a direction is zero, beside the length of the others' min-norm point, `least`."""
    if outcome.weights is None:
        return outcome.direction is not None and not bool(outcome.direction.any())
    weights = outcome.weights
    if weights.ndim == 2 and objectives.batches == 1:
        square = float(np.einsum("ki,kij,kj->", weights, objectives.block_grams, weights))
        weights = np.abs(weights).max(0)
    else:
        weights = weights.reshape(-1)
        square = float(weights @ objectives.gram @ weights)
    return square <= (STOPPED * least * float(np.abs(weights).sum())) ** 2

"""protect=: the outcome of a group without its conflict with one objective."""

import torch

from gradsurgery.contract.outcome import Outcome
from gradsurgery.gradients.scaled import Seen
from gradsurgery.solvers import without_conflict


def protected(outcome: Outcome, matrix: Seen, index: int) -> Outcome:
    """The outcome, projected onto ⟨gₚ, d⟩ >= 0 where it conflicts with objective p.

    Args:
        outcome: weights, or a direction.
        matrix: the gradients; in a metric P they are P^½ gᵢ, and so is a direction, so that the
            projection is the nearest in the metric, with ⟨gₚ, Pd⟩ >= 0.
        index: p.
    """
    if outcome.weights is not None:
        grams = matrix.gram if outcome.weights.ndim == 1 else matrix.block_grams
        weights = without_conflict(outcome.weights, grams, index)
        return Outcome(weights, None, outcome.gap, outcome.converged)
    direction = outcome.direction
    assert direction is not None
    gradient = matrix.rows[index]
    along = float(torch.dot(direction.double(), gradient.double()))
    square = float(torch.dot(gradient.double(), gradient.double()))
    if along >= 0 or square == 0:
        return outcome
    return Outcome(None, direction - (along / square) * gradient)

"""The length of a direction: as the strategy makes it, or that of the sum of the gradients."""

from dataclasses import replace

import numpy as np
import torch

from gradsurgery.contract.outcome import Outcome
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.solvers import at_rounding_floor, split
from gradsurgery.types import Array


def as_long_as_the_sum(outcome: Outcome, matrix: GradientMatrix) -> Outcome:
    """The outcome, multiplied by a number >= 0 that gives its direction the length of the sum.

    With weights w both lengths come from the Gram matrix, ‖Σgᵢ‖ = √(1ᵀG1) and ‖d‖ = √(wᵀGw), so
    that they are of all processes' shares together. Where gradients cancel their relative error is
    eps·(Σnᵢ/‖Σgᵢ‖)². A direction or a sum that is nothing but rounding counts as zero, and then
    the weights are zero. A sum of zero is a Pareto stationary point: where it is zero, so is what
    a non-conflicting strategy returns.

    Args:
        outcome: weights [n], [k, n] or [m, n], or a direction [d]; finite.
        matrix: the gradients, finite.
    """
    weights = outcome.weights
    usual = np.full(matrix.count, 1 / matrix.batches)  # of the sum: the mean over the batches
    if weights is None:
        direction = outcome.direction
        assert direction is not None
        size = float(torch.linalg.vector_norm(direction, dtype=torch.float64))
        if size == 0:
            return outcome
        factor = _length(matrix.gram, usual, matrix.eps) / size
        return Outcome(None, (direction.double() * factor).to(direction.dtype))
    flat = weights.reshape(-1)
    if flat[0] != 0 and (flat == flat[0]).all():  # the sum itself, to the last bit
        return replace(outcome, weights=np.full(weights.shape, np.sign(flat[0]) / matrix.batches))
    if weights.ndim == 2 and matrix.batches == 1:
        size = _length_by_tensor(matrix, weights)
    else:
        size = _length(matrix.gram, flat, matrix.eps)
    if size == 0:
        return replace(outcome, weights=np.zeros_like(weights))
    target = _length(matrix.gram, usual, matrix.eps)
    # weights and lengths may be far from 1, so that only their quotient is in range
    largest = float(np.abs(weights).max())
    return replace(outcome, weights=weights / largest * (target / (size / largest)))


def _length(gram: Array, weights: Array, eps: float) -> float:
    """‖Jᵀw‖; 0 where that is nothing but rounding."""
    cosines, norms = split(gram)
    terms = weights * norms
    largest = float(np.abs(terms).max(initial=0.0))
    if largest == 0:
        return 0.0
    terms = terms / largest
    if at_rounding_floor(cosines, terms, eps):
        return 0.0
    return largest * float(np.sqrt(terms @ cosines @ terms))


def _length_by_tensor(matrix: GradientMatrix, weights: Array) -> float:
    """‖d‖ for weights [k, n], one row per tensor; 0 where all of it is rounding."""
    pairs = zip(matrix.block_grams, weights, strict=True)
    return float(np.linalg.norm([_length(gram, row, matrix.eps) for gram, row in pairs]))

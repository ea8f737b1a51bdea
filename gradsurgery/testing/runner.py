"""One call of a strategy on a sample, with every input that a fresh first step would give it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gradsurgery.registry import State, Strategy
from gradsurgery.testing.adversarial import Array, Sample

BATCHES = 3  # independent batches, for strategies that take `cross`; here all of them are alike


@dataclass(frozen=True, eq=False)
class Direction:
    """What came of it: d [d], the size Σⱼ |wⱼ|nⱼ of its terms, and the weights, if there are any.

    Without weights the size is ‖d‖, or what the strategy makes of orthogonal gradients of the same lengths, if that is
    larger: near a stationary point d itself is no measure of what it was made of.
    """

    vector: Array
    size: float
    weights: Array | None


def losses_of(sample: Sample) -> Array:
    """Losses [n], positive and all different, fixed for a number of objectives; they belong to the names."""
    fixed = 0.5 + 1.5 * np.random.default_rng(sample.count).permutation(sample.count) / sample.count
    return np.asarray(fixed[[int(name) for name in sample.names]])


def inputs_of(sample: Sample) -> dict[str, Any]:
    """Every input of a fresh first step that does not come from the gradients' coordinates."""
    return {"losses": losses_of(sample), "splits": sample.splits, "objectives": sample.names, "scores": {"all": 2.0, "other": 1.0}}


def run(strategy: Strategy, sample: Sample, *, step: int = 0, state: State | None = None) -> Direction:
    """The direction of the strategy on a sample; `step` chooses among the sample's random numbers, a fresh state is the default."""
    inputs = inputs_of(sample)
    if "state" in strategy.inputs:
        inputs["state"] = State() if state is None else state
    if "rows" in strategy.inputs:
        vector = strategy(torch.from_numpy(sample.jacobian), step=sample.draw + step, **inputs).numpy()
        return Direction(vector, max(float(np.linalg.norm(vector)), _usual(strategy, sample)), None)
    if "cross" in strategy.inputs:
        inputs["cross"] = np.broadcast_to(sample.gram, (BATCHES, BATCHES, *sample.gram.shape)).copy()
    weights = strategy.weights(sample.gram, step=sample.draw + step, block_grams=sample.block_grams, **inputs)
    return combine(sample, weights.sum(0) if "cross" in strategy.inputs else weights)


def _usual(strategy: Strategy, sample: Sample) -> float:
    """‖d‖ on orthogonal gradients of the same lengths; a zero one is given the least of the others'."""
    live = sample.norms[sample.norms > 0]
    norms = np.where(sample.norms > 0, sample.norms, live.min() if len(live) else 0.0)
    inputs = inputs_of(sample) | {"splits": (sample.count,)}
    if "state" in strategy.inputs:
        inputs["state"] = State()
    return float(strategy(torch.from_numpy(np.diag(norms)), step=sample.draw, **inputs).norm())


def combine(sample: Sample, weights: Array) -> Direction:
    """d = Jᵀw for weights [n], or [k, n] with one row a parameter tensor."""
    if weights.ndim == 1:
        scaled = weights * sample.norms
        return Direction(sample.units.T @ scaled, float(np.abs(scaled).sum()), weights)
    pieces = np.split(sample.units, np.cumsum(sample.splits)[:-1], axis=1)
    vector = np.concatenate([piece.T @ (w * sample.norms) for piece, w in zip(pieces, weights, strict=True)])
    lengths = np.stack([np.linalg.norm(piece, axis=1) * sample.norms for piece in pieces])
    return Direction(vector, float((np.abs(weights) * lengths).sum()), weights)


def scaled(sample: Sample, factors: float | Array) -> Sample:
    """The sample with its rows multiplied."""
    return replace(sample, norms=sample.norms * factors)


def permuted(sample: Sample, order: Any) -> Sample:
    """The sample with its rows, and their names, in another order."""
    chosen = np.asarray(order)
    return replace(sample, units=sample.units[chosen], norms=sample.norms[chosen], names=tuple(sample.names[i] for i in chosen))

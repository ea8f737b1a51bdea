"""One call of a strategy on a sample, with every input that a fresh first step would give it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradsurgery.registry import State, Strategy
from gradsurgery.testing.adversarial import Array, Sample


@dataclass(frozen=True, eq=False)
class Direction:
    """What came of it: d [d], the size Σⱼ |wⱼ|nⱼ of its terms (‖d‖ without weights), and the weights, if there are any."""

    vector: Array
    size: float
    weights: Array | None


def losses_of(sample: Sample) -> Array:
    """Losses [n], positive and all different, fixed for a number of objectives."""
    return 0.5 + 1.5 * np.random.default_rng(sample.count).permutation(sample.count) / sample.count


def inputs_of(sample: Sample, losses: Array | None = None) -> dict[str, Any]:
    """Every input of a fresh first step that does not come from the gradients' coordinates."""
    return {"losses": losses_of(sample) if losses is None else losses, "splits": sample.splits}


def run(strategy: Strategy, sample: Sample, *, losses: Array | None = None, step: int = 0, state: State | None = None) -> Direction:
    """The direction of the strategy on a sample; `step` chooses the random numbers, a fresh state is the default."""
    inputs = inputs_of(sample, losses)
    if "state" in strategy.inputs:
        inputs["state"] = State() if state is None else state
    if "rows" in strategy.inputs:
        vector = strategy(torch.from_numpy(sample.jacobian), step=step, **inputs).numpy()
        return Direction(vector, float(np.linalg.norm(vector)), None)
    weights = strategy.weights(sample.gram, step=step, block_grams=sample.block_grams, **inputs)
    return combine(sample, weights)


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
    return Sample(sample.kind, sample.units, sample.norms * factors, sample.splits)


def permuted(sample: Sample, order: Any) -> Sample:
    """The sample with its rows in another order."""
    chosen = np.asarray(order)
    return Sample(sample.kind, sample.units[chosen], sample.norms[chosen], sample.splits)

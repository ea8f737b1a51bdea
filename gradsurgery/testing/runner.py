"""One call of a strategy on a sample, with every input that a step would give it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gradsurgery.contract import Claim, State, Strategy
from gradsurgery.testing.circumstances import changes, inputs_of, losses_of
from gradsurgery.testing.sample import Array, Sample

__all__ = [
    "BATCHES",
    "SKIP",
    "Direction",
    "claims_of",
    "combine",
    "inputs_of",
    "is_random",
    "later",
    "losses_of",
    "permuted",
    "run",
    "scaled",
]

SKIP = "cannot tell"
BATCHES = 3  # independent batches, for strategies that take `cross`; here all of them are alike


@dataclass(frozen=True, eq=False)
class Direction:
    """What came of it: d [d], the size Σⱼ |wⱼ|nⱼ of its terms, and the weights, if there are any.

    Without weights the size is ‖d‖, or what the strategy makes of orthogonal gradients of the same
    lengths, if that is larger. Near a stationary point d itself is no measure of what it was made
    of.
    """

    vector: Array
    size: float
    weights: Array | None


def run(
    strategy: Strategy,
    sample: Sample,
    *,
    step: int = 0,
    state: State | None = None,
    moment: int = 0,
    sized: bool = True,
) -> Direction:
    """The direction of the strategy on a sample.

    Args:
        strategy: the strategy.
        sample: the gradients; the strategy gets copies, so that what it does to them stays with it.
        step: chooses among the sample's random numbers.
        state: what it remembers; a fresh state is the default.
        moment: how many steps have gone by; gradients then have other lengths than at moment 0, and
            losses other values.
        sized: False where only the vector is wanted: a direction made of rows then gets no size.
    """
    sample = later(sample, moment)
    inputs = inputs_of(sample, strategy, moment=moment)
    if "state" in strategy.inputs:
        inputs["state"] = State() if state is None else state
    if "rows" in strategy.inputs:
        vector = _from_rows(
            strategy, sample.jacobian.copy(), sample.draw + step, inputs, keep=state is not None
        )
        if not sized:
            return Direction(vector, np.nan, None)
        return Direction(vector, max(float(np.linalg.norm(vector)), _usual(strategy, sample)), None)
    if "cross" in strategy.inputs:
        inputs["cross"] = np.broadcast_to(
            sample.gram, (BATCHES, BATCHES, *sample.gram.shape)
        ).copy()
    if {"block_grams", "splits"} & strategy.inputs:  # weights may be one row per tensor
        inputs["block_grams"] = sample.block_grams.copy()
    weights = strategy.weights(sample.gram, step=sample.draw + step, **inputs)
    return combine(sample, weights.sum(0) if "cross" in strategy.inputs else weights)


def is_random(strategy: Strategy) -> bool:
    """Whether it asks for random numbers."""
    return bool({"rng", "generator"} & strategy.inputs)


def claims_of(strategy: Strategy, name: str, sample: Sample) -> list[Claim]:
    """The claims of this name that the strategy makes for such gradients."""
    return [
        claim
        for claim in strategy.claims
        if claim.name == name and claim.holds(sample.count, sample.rank, strategy.options)
    ]


def later(sample: Sample, moment: int) -> Sample:
    """The gradients at a later moment: the same directions, of other lengths."""
    return scaled(sample, changes(sample, moment, 0)) if moment else sample


def _usual(strategy: Strategy, sample: Sample) -> float:
    """‖d‖ on orthogonal gradients of the same lengths; a zero one gets the least of the others'."""
    live = sample.norms[sample.norms > 0]
    norms = np.where(sample.norms > 0, sample.norms, live.min() if len(live) else 0.0)
    inputs = inputs_of(sample, strategy) | {"splits": (sample.count,)}
    if "state" in strategy.inputs:
        inputs["state"] = State()
    return float(np.linalg.norm(_from_rows(strategy, np.diag(norms), sample.draw, inputs)))


def _from_rows(
    strategy: Strategy, jacobian: Array, seed: int, inputs: dict[str, Any], keep: bool = False
) -> Array:
    """The direction of a strategy that takes rows.

    Without a Gram matrix where it takes none, as making one is most of the time. The state has one
    parameter tensor, and changes only where it is to be kept.
    """
    rows = torch.from_numpy(jacobian)
    if strategy.inputs & {"gram", "block_grams", "cross"}:
        return np.asarray(strategy(rows, step=seed, **inputs).numpy())
    given = {"eps": 1e-15, **inputs, "rows": rows}
    if "rng" in strategy.inputs:
        given["rng"] = np.random.default_rng([seed, 2])
    if "generator" in strategy.inputs:
        given["generator"] = torch.Generator().manual_seed(seed)
    state = inputs.get("state")
    if state is not None:
        given["state"] = state.bind(inputs["objectives"], ("0",), [rows[0]])
    direction = strategy.solve(given, len(rows), len(inputs["splits"])).direction
    if state is not None and keep:
        state.adopt(given["state"])
    assert direction is not None
    return np.asarray(direction.to(rows.dtype).numpy())


def combine(sample: Sample, weights: Array) -> Direction:
    """d = Jᵀw for weights [n], or [k, n] with one row per parameter tensor."""
    if weights.ndim == 1:
        scaled = weights * sample.norms
        return Direction(sample.units.T @ scaled, float(np.abs(scaled).sum()), weights)
    pieces = np.split(sample.units, np.cumsum(sample.splits)[:-1], axis=1)
    vector = np.concatenate(
        [piece.T @ (w * sample.norms) for piece, w in zip(pieces, weights, strict=True)]
    )
    lengths = np.stack([np.linalg.norm(piece, axis=1) * sample.norms for piece in pieces])
    return Direction(vector, float((np.abs(weights) * lengths).sum()), weights)


def scaled(sample: Sample, factors: float | Array) -> Sample:
    """The sample with its rows multiplied."""
    return replace(sample, norms=sample.norms * factors)


def permuted(sample: Sample, order: Any) -> Sample:
    """The sample with its rows, and their names, in another order."""
    chosen = np.asarray(order)
    return replace(
        sample,
        units=sample.units[chosen],
        norms=sample.norms[chosen],
        names=tuple(sample.names[i] for i in chosen),
    )

"""One call of a strategy on a sample, with every input that a step would give it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradsurgery.contract import Claim, State, Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.testing.circumstances import changes
from gradsurgery.testing.context import context_of
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

SKIP = "cannot tell"


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction that a strategy gave, with the size of its terms and the weights, if any.

    d [d], and the size Σⱼ |wⱼ|nⱼ.

    Without weights the size is ‖d‖, or what the strategy makes of orthogonal gradients of the same
    lengths, if that is larger. Near a stationary point d itself is no measure of what it was made
    of. That takes one more call, which is made when the size is first read: compare with `least`
    before.
    """

    vector: Array
    least: float  # no more than the size, and found without a call
    weights: Array | None
    usual: Callable[[], float] | None = field(default=None, repr=False)

    @cached_property
    def size(self) -> float:
        """The size of the terms."""
        return self.least if self.usual is None else max(self.least, self.usual())

    def times(self, factor: float) -> "Direction":
        """The direction multiplied by a positive number; its weights stay away."""
        vector, least = self.vector * factor, self.least * factor
        return Direction(vector, least, None, lambda: self.size * factor)

    def over(self, length: float) -> "Direction":
        """The direction divided by a length, whose inverse may be too large for a float."""
        vector, least = self.vector / length, self.least / length
        return Direction(vector, least, None, lambda: self.size / length)


def run(
    strategy: Strategy,
    sample: Sample,
    *,
    step: int = 0,
    state: State | None = None,
    moment: int = 0,
) -> Direction:
    """The direction of the strategy on a sample.

    Args:
        strategy: the strategy.
        sample: the gradients; the strategy gets copies, so that what it does to them stays with it.
        step: chooses among the sample's random numbers.
        state: what it remembers; a fresh state is the default.
        moment: how many steps have gone by; gradients then have other lengths than at moment 0, and
            losses other values.
    """
    sample = later(sample, moment)
    context = context_of(sample, strategy, moment=moment, step=step, state=state)
    outcome = strategy.decide(context)
    if outcome.weights is not None:
        several = "cross" in strategy.inputs
        return combine(sample, outcome.weights.sum(0) if several else outcome.weights)
    vector = _vector(outcome)
    length = float(np.linalg.norm(vector))
    return Direction(vector, length, None, lambda: _usual(strategy, sample))


def known(strategy: Strategy, sample: Sample, *, step: int = 0) -> Direction:
    """`run` in a first step, from memory where a check has asked the same of the sample before."""
    asked: tuple[Strategy, dict[int, Direction]] | None = sample.__dict__.get("_asked")
    if asked is None or asked[0] is not strategy:  # one strategy at a time: samples serve many
        asked = sample.__dict__["_asked"] = (strategy, {})
    if step not in asked[1]:
        asked[1][step] = run(strategy, sample, step=step)
    return asked[1][step]


def off(error: float, limit: float, *directions: Direction) -> float:
    """An error in units of the largest size, or 0 where that is within the limit.

    The size that takes no call decides where it can.
    """
    if error <= limit * max(direction.least for direction in directions):
        return 0.0
    size = max(direction.size for direction in directions)
    return 0.0 if error <= limit * size else error / size


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
    n, live = sample.count, sample.norms[sample.norms > 0]
    norms = np.where(sample.norms > 0, sample.norms, live.min() if len(live) else 0.0)
    apart = replace(sample, units=np.eye(n), norms=norms, splits=(n,))
    return float(np.linalg.norm(_vector(strategy.decide(context_of(apart, strategy)))))


def _vector(outcome: Outcome) -> Array:
    assert outcome.direction is not None
    return np.asarray(outcome.direction.double().numpy())


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

"""The properties that claims speak of: each a function that says how a strategy breaks it on a sample, or None.

None means that the property holds there; `SKIP` that the sample cannot tell (a direction that rounding decides).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from gradsurgery.contract.registry import Claim, State, Strategy
from gradsurgery.testing.adversarial import Array, Sample
from gradsurgery.testing.circumstances import circumstances, inputs_of, losses_of, stationary
from gradsurgery.testing.later_steps import by_position, second_steps_differ
from gradsurgery.testing.runner import BATCHES, SKIP, Direction, permuted, run, scaled

TOLERANCE = 1e-10  # of non-conflict, relative to nᵢ · Σⱼ |wⱼ|nⱼ, for Gram matrices in float64
SINGLE = 1e-5  # the same for gradients in float32
HALF = 3e-2  # and for directions made of rows in bfloat16
ROUNDING = 1e-14  # below this, relative to the same, a number has no sign
RELATIVE = 1e-6  # agreement of directions where they are well determined
LENGTH = 1e-7  # of the mean norm: what a Gram matrix in float64 leaves undetermined of a length
STATIONARY = 1e-12  # ‖d‖²/(Σ wn)² at the min-norm point below which strategies may return zero
DRAWS = 400  # for what holds in distribution
DEVIATIONS = 5.5


class Property(Protocol):
    """How a strategy breaks a property on a sample: a sentence; None where it holds; `SKIP` where the sample cannot tell."""

    def __call__(self, strategy: Strategy, sample: Sample, claim: Claim, /) -> str | None: ...


@dataclass(frozen=True)
class Registered:
    """A property under the name of its claim."""

    name: str
    violation: Property


PROPERTIES: dict[str, Registered] = {}


def _property(name: str) -> Callable[[Property], Property]:
    def add(violation: Property) -> Property:
        PROPERTIES[name] = Registered(name, violation)
        return violation

    return add


def _draws(strategy: Strategy) -> range:
    """The random numbers that a promise about every single direction is looked at with."""
    return range(4 if is_random(strategy) else 1)


def is_random(strategy: Strategy) -> bool:
    """Whether it asks for random numbers."""
    return bool({"rng", "generator"} & strategy.inputs)


@_property("non-conflicting")
def non_conflicting(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """No ⟨gᵢ, d⟩ below −tol·nᵢ·Σⱼ|wⱼ|nⱼ."""
    directions = (run(strategy, sample, step=step) for step in _draws(strategy))
    found = (
        _hurt(sample, direction, _tolerance(strategy, sample, direction))
        for direction in directions
    )
    return next((hurt for hurt in found if hurt), None) or _hurt_single(strategy, sample)


def _of_grams(strategy: Strategy, sample: Sample) -> float:
    """What the accuracy allows that the strategy was told of: a Gram matrix in float32 is one of float32."""
    single = (
        "eps" in strategy.inputs and circumstances(sample.draw).eps is not None and sample.clear
    )
    return SINGLE if single else TOLERANCE


def _tolerance(strategy: Strategy, sample: Sample, direction: Direction) -> float:
    """More for directions made of rows: their size may be far below that of the terms which cancel in them."""
    least = _of_grams(strategy, sample)
    if direction.weights is not None or direction.size == 0:
        return least
    return max(least, ROUNDING * float(sample.norms.max()) / direction.size)


def _hurt(sample: Sample, direction: Direction, tolerance: float) -> str | None:
    if direction.size == 0:
        return None
    relative = (sample.units @ direction.vector) / direction.size
    worst = int(np.argmin(relative))
    if relative[worst] >= -tolerance:
        return None
    return f"objective {worst} is hurt: ⟨gᵢ, d⟩ is {relative[worst]:.3g} of nᵢ·Σⱼ|wⱼ|nⱼ (allowed down to {-tolerance:.0e})"


def _hurt_single(strategy: Strategy, sample: Sample) -> str | None:
    """The same from gradients in float32, where float32 holds them; as rows in bfloat16 too."""
    if (
        not 1e-18
        < sample.norms[sample.norms > 0].min(initial=1.0)
        <= sample.norms.max(initial=1.0)
        < 1e18
    ):
        return None
    for dtype, tolerance in ((torch.float32, SINGLE), (torch.bfloat16, HALF)):
        if dtype is torch.bfloat16 and "rows" not in strategy.inputs:
            continue
        rows = torch.from_numpy(sample.jacobian).to(dtype)
        exact = Sample.of(rows.double().numpy(), sample.splits, sample.kind, sample.draw)
        vector = _single(strategy, rows, exact)
        hurt = _hurt(
            exact,
            Direction(vector, max(run(strategy, exact).size, float(np.linalg.norm(vector))), None),
            tolerance,
        )
        if hurt is not None:
            return f"with gradients in {str(dtype)[6:]} (d = {np.array2string(vector, precision=4)}), {hurt}"
    return None


def _single(strategy: Strategy, rows: torch.Tensor, exact: Sample) -> Array:
    inputs = inputs_of(exact, strategy)
    inputs.pop("eps", None)  # that of the rows' dtype
    if "state" in strategy.inputs:
        inputs["state"] = State()
    batches = rows.expand(BATCHES, *rows.shape) if "cross" in strategy.inputs else rows
    return np.asarray(strategy(batches, step=exact.draw, **inputs).double().numpy())


@_property("strict")
def strict(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """Non-conflicting, and ⟨gᵢ, d⟩ > 0 for all i wherever a common descent direction exists beyond rounding."""
    found = [_improves(strategy, sample, step) for step in _draws(strategy)]
    return next((violation for violation in found if violation is not None), None)


def _improves(strategy: Strategy, sample: Sample, step: int) -> str | None:
    direction = run(strategy, sample, step=step)
    hurt = _hurt(sample, direction, _tolerance(strategy, sample, direction))
    if hurt is not None:
        return hurt
    # At the min-norm point ⟨gᵢ, d⟩ >= ‖d‖², to be compared with nᵢ · Σ nⱼ; on rows of length one where norms do not count.
    norms = sample.norms
    if _promises(strategy, "scale-invariant", sample):
        norms = np.where(norms > 0, 1.0, 0.0)
    reach, _ = sample.hull(np.where(norms > 0, sample.norms / np.where(norms > 0, norms, 1.0), 1.0))
    matters = reach > 10 * _of_grams(strategy, sample) * norms * norms.sum()
    if _stationary(strategy, sample) or not matters.any():
        return SKIP
    relative = (sample.units @ direction.vector) / (direction.size or 1.0)
    flat = matters & (relative <= ROUNDING)
    if not flat.any():
        return None
    worst = int(np.flatnonzero(flat)[0])
    return f"objective {worst} does not improve: ⟨gᵢ, d⟩ is {relative[worst]:.2g} of nᵢ·Σⱼ|wⱼ|nⱼ although some direction improves all"


@_property("homogeneous")
def homogeneous(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """d(sJ) = s^k d(J)."""
    before = run(strategy, sample)
    degree = claim.degree_under(strategy.options)
    for factor in (2.0**-40, 0.5, 2.0**13, 1.5, 3e-5):
        after = run(strategy, scaled(sample, factor))
        if degree is None:  # no degree promised: is there one?
            lengths = [float(np.linalg.norm(d.vector)) for d in (before, after)]
            if not min(lengths) > 0:
                return SKIP
            degree = round(float(np.log2(lengths[1] / lengths[0]) / np.log2(factor)), 6)
        expected = before.vector * factor**degree
        size = max(after.size, before.size * factor**degree)
        error = float(np.linalg.norm(after.vector - expected))
        exact = float(
            np.log2(factor)
        ).is_integer()  # other factors round, which matters near a stationary point
        if (
            not error
            <= (1e-9 if exact else max(1e-9, _allowed(sample, 1.0, losses=losses_of(sample))))
            * size
        ):
            return f"J → {factor:g}·J does not give d → {factor:g}^{degree:g}·d: off by {error / size:.2g} of Σⱼ|wⱼ|nⱼ"
    return None


@_property("scale-invariant")
def scale_invariant(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """Scaling one row leaves the direction of d."""
    if _stationary(strategy, sample):
        return SKIP
    before = run(strategy, sample)
    for row in range(sample.count):
        for factor in (2.0**-9, 100.0) if row in (0, sample.count - 1) else (2.0**7,):
            after = run(
                strategy, scaled(sample, np.where(np.arange(sample.count) == row, factor, 1.0))
            )
            lengths = [float(np.linalg.norm(d.vector)) for d in (before, after)]
            if not min(lengths) > 0:
                if max(lengths) == 0:
                    continue
                return f"row {row} scaled by {factor:g} takes d to or from zero"
            allowed = _allowed(
                sample, *(d.size / n for d, n in zip((before, after), lengths, strict=True))
            )
            error = float(np.linalg.norm(before.vector / lengths[0] - after.vector / lengths[1]))
            if not error <= allowed:
                return f"row {row} scaled by {factor:g} turns d by {error:.2g} rad"
    return None


@_property("permutation-equivariant")
def permutation_equivariant(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """d does not depend on the order of the objectives; for randomised strategies, in distribution."""
    cosines = np.abs(
        sample.units @ sample.units.T - np.diag(np.diag(sample.units @ sample.units.T))
    )
    if ((cosines > 0) & (cosines < 1e-12)).any():
        return SKIP  # a cosine of ±1e-17 is a conflict or not by rounding alone
    if sample.count == 1:
        return SKIP
    chosen = np.random.default_rng([sample.count, sample.draw])
    orders = [
        np.roll(np.arange(sample.count)[::-1], sample.count // 3),
        chosen.permutation(sample.count),
        chosen.permutation(sample.count),
    ]
    if is_random(strategy):
        first = [run(strategy, sample, step=step) for step in range(DRAWS)]
        swapped = np.roll(np.arange(sample.count), 1)  # no objective keeps its place
        second = [
            run(strategy, permuted(sample, swapped), step=DRAWS + step) for step in range(DRAWS)
        ]
        return _same_distribution(first, second)
    before = run(strategy, sample)
    for order in orders:
        after = run(strategy, permuted(sample, order))
        size = max(before.size, after.size)
        error = float(np.linalg.norm(before.vector - after.vector))
        if not error <= _allowed(sample, 1.0, losses=losses_of(sample)) * size:
            return f"in the order {order.tolist()} of the objectives d is another, by {error / size:.2g} of Σⱼ|wⱼ|nⱼ"
    return (
        by_position(strategy, sample, _allowed)
        if "state" in strategy.inputs and sample.draw % 2 == 0
        else None
    )


def _same_distribution(first: list[Direction], second: list[Direction]) -> str | None:
    """Compare means and variances per coordinate by their standard errors."""
    one, other = (np.stack([d.vector for d in draws]) for draws in (first, second))
    scale = max(d.size for d in first + second) or 1.0
    for what in ("mean", "variance"):
        a, b = one / scale, other / scale
        if what == "variance":
            a, b = (a - a.mean(0)) ** 2, (b - b.mean(0)) ** 2
        error = np.sqrt((a.var(0) + b.var(0)) / len(a)) + 1e-12
        z = np.abs(a.mean(0) - b.mean(0)) / error
        if not z.max() <= DEVIATIONS:
            return f"over {len(a)} draws the {what} of d changes with the order of the objectives, by {z.max():.1f} standard errors"
    return None


@_property("deterministic")
def deterministic(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """The same J gives the same d, bit for bit, whatever the random numbers."""
    first = run(strategy, sample, sized=False).vector
    if any(
        not np.array_equal(first, run(strategy, sample, step=step, sized=False).vector)
        for step in (1, 2)
    ):
        return "two calls on the same gradients differ"
    return (
        second_steps_differ(strategy, sample)
        if is_random(strategy) and "state" in strategy.inputs
        else None
    )


@_property("sums-to-one")
def sums_to_one(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """Σ w = 1, away from stationarity."""
    if _stationary(strategy, sample):
        return SKIP
    weights = run(strategy, sample).weights
    if weights is None:
        return "it returns a direction, so it has no weights that could sum to one"
    total = weights.sum(-1)
    if (np.abs(total - 1) <= 1e-9 * np.maximum(1.0, np.abs(weights).sum(-1))).all():
        return None
    return f"the weights sum to {np.array2string(total, precision=10)}"


@_property("projection")
def projection(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """d is non-conflicting, no longer than the mean gradient, and the mean itself where that is."""
    direction = run(strategy, sample)
    hurt = _hurt(sample, direction, _tolerance(strategy, sample, direction))
    if hurt is not None:
        return hurt
    n = sample.count
    mean, size = sample.units.T @ sample.norms / n, float(sample.norms.mean())
    longest = (1 + RELATIVE) * float(np.linalg.norm(mean)) + LENGTH * size
    length = float(np.linalg.norm(direction.vector))
    if not length <= longest:
        return f"d is {length / (longest or 1.0):.3g} times longer than the mean gradient"
    agrees = bool((sample.units @ mean >= ROUNDING * size).all())
    error = float(np.linalg.norm(direction.vector - mean))
    if agrees and not error <= RELATIVE * size:
        return f"d is not the mean, which conflicts with no gradient: off by {error / size:.2g}"
    return None


def _stationary(strategy: Strategy, sample: Sample) -> bool:
    """Whether the gradients are so nearly stationary that the strategy may stop; those divided by their losses as well."""
    bound = stationary(sample, STATIONARY)
    if sample.conditioning <= bound:
        return True
    if "losses" not in strategy.inputs or not strategy.needs_gradients:
        return False
    losses = losses_of(sample)
    return (
        min(
            sample.distance(losses),
            sample.distance(losses * np.where(sample.norms > 0, sample.norms, 1.0)),
        )
        <= bound
    )


def _promises(strategy: Strategy, name: str, sample: Sample) -> bool:
    return any(
        c.name == name and c.holds(sample.count, sample.rank, strategy.options)
        for c in strategy.claims
    )


def _allowed(sample: Sample, *amplification: float, losses: Any = None) -> float:
    """How far apart two directions may be that differ by rounding alone: more, the nearer to stationary."""
    conditioning = sample.conditioning
    if losses is not None:
        live = np.where(sample.norms > 0, sample.norms, 1.0)
        conditioning = min(conditioning, sample.distance(losses), sample.distance(losses * live))
    return max(amplification) * (RELATIVE + 1e-13 / max(conditioning, 1e-18))

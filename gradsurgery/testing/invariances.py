"""Properties that say what leaves a direction as it is: scales, orders, random numbers."""

import numpy as np

from gradsurgery.contract import Claim, Strategy
from gradsurgery.testing.circumstances import losses_of
from gradsurgery.testing.later_steps import by_position, second_steps_differ
from gradsurgery.testing.runner import (
    SKIP,
    Direction,
    is_random,
    known,
    off,
    permuted,
    run,
    scaled,
)
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.tolerances import allowed, nearly_stationary

DRAWS = 400  # for what holds in distribution
DEVIATIONS = 5.5


def homogeneous(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """d(sJ) = s^k d(J)."""
    before = known(strategy, sample)
    degree = claim.degree_under(strategy.options)
    for factor in (2.0**-40, 2.0**13, 1.5, 3e-5):
        after = run(strategy, scaled(sample, factor))
        if degree is None:  # no degree promised: is there one?
            lengths = [float(np.linalg.norm(d.vector)) for d in (before, after)]
            if not min(lengths) > 0:
                return SKIP
            degree = round(float(np.log2(lengths[1] / lengths[0]) / np.log2(factor)), 6)
        expected = before.times(factor**degree)
        error = float(np.linalg.norm(after.vector - expected.vector))
        limit = 1e-9
        if not float(np.log2(factor)).is_integer():  # it rounds: this matters near stationarity
            limit = max(limit, allowed(sample, 1.0, losses=losses_of(sample)))
        if share := off(error, limit, after, expected):
            return (
                f"J → {factor:g}·J does not give d → {factor:g}^{degree:g}·d: "
                f"off by {share:.2g} of Σⱼ|wⱼ|nⱼ"
            )
    return None


def scale_invariant(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """Scaling one row leaves the direction of d."""
    if nearly_stationary(strategy, sample):
        return SKIP
    before = known(strategy, sample)
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
            one, other = (d.over(n) for d, n in zip((before, after), lengths, strict=True))
            error = float(np.linalg.norm(one.vector - other.vector))
            if off(error, allowed(sample, 1.0), one, other):
                return f"row {row} scaled by {factor:g} turns d by {error:.2g} rad"
    return None


def permutation_equivariant(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """d does not depend on the order of the objectives; in distribution, where it is random."""
    cosines = np.abs(sample.units @ sample.units.T)
    np.fill_diagonal(cosines, 0.0)
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
    before = known(strategy, sample)
    for order in orders:
        after = run(strategy, permuted(sample, order))
        error = float(np.linalg.norm(before.vector - after.vector))
        if share := off(error, allowed(sample, 1.0, losses=losses_of(sample)), before, after):
            return (
                f"in the order {order.tolist()} of the objectives d is another, "
                f"by {share:.2g} of Σⱼ|wⱼ|nⱼ"
            )
    return (
        by_position(strategy, sample, allowed)
        if "state" in strategy.inputs and sample.draw % 2 == 0
        else None
    )


def _same_distribution(first: list[Direction], second: list[Direction]) -> str | None:
    """Compare means and variances per coordinate by their standard errors."""
    draws = first + second
    found = _apart(first, second, max(d.least for d in draws))
    # a larger scale is a larger floor of rounding: what agrees under the least scale agrees
    return found and _apart(first, second, max(d.size for d in draws))


def _apart(first: list[Direction], second: list[Direction], scale: float) -> str | None:
    one, other = (np.stack([d.vector for d in draws]) / (scale or 1.0) for draws in (first, second))
    for what in ("mean", "variance"):
        a, b = one, other
        if what == "variance":
            a, b = (a - a.mean(0)) ** 2, (b - b.mean(0)) ** 2
        error = np.sqrt((a.var(0) + b.var(0)) / len(a)) + 1e-12
        z = np.abs(a.mean(0) - b.mean(0)) / error
        if not z.max() <= DEVIATIONS:
            return (
                f"over {len(a)} draws the {what} of d changes with the order of the objectives, "
                f"by {z.max():.1f} standard errors"
            )
    return None


def deterministic(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """The same J gives the same d, bit for bit, whatever the random numbers."""
    first = known(strategy, sample).vector
    # other random numbers, where there are any; else once more is enough
    steps = (1, 2) if is_random(strategy) else (0,)
    if any(not np.array_equal(first, run(strategy, sample, step=step).vector) for step in steps):
        return "two calls on the same gradients differ"
    return (
        second_steps_differ(strategy, sample)
        if is_random(strategy) and "state" in strategy.inputs
        else None
    )

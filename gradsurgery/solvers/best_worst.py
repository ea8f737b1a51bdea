"""CAGrad's problem: near a mean of the gradients, the direction of largest worst improvement."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsurgery.errors import InputError
from gradsurgery.solvers.dual_cone import project_dual_cone
from gradsurgery.solvers.min_norm import min_norm
from gradsurgery.solvers.nonnegative import least_distance
from gradsurgery.solvers.scaling import (
    DEFAULT_EPS,
    as_gram,
    as_positive,
    at_rounding_floor,
    factor,
    split,
)
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

NDArrayBool = NDArray[np.bool_]
TOLERANCE = 1e-10
MAX_ROUNDS = 200
PATIENCE = 16  # rounds after which every other one halves the bracket
RIDGE = 1e-12  # at a stationary point the cone is flat up to rounding, and rounding shall not steer


def best_worst(gram: Any, radius: float, eps: float | None = None, weights: Any = None) -> Solution:
    """The direction near the mean gradient whose worst improvement is largest.

    max over d of minᵢ ⟨gᵢ, d⟩ s.t. ‖d − g₀‖ <= c‖g₀‖, with g₀ the mean gradient (Liu et al. 2021,
    equation 3) or a weighted one, g₀ = Jᵀu. Its dual is min over the simplex of ⟨g_w, g₀⟩ +
    c‖g₀‖‖g_w‖, with d = g₀ + c‖g₀‖ g_w/‖g_w‖.

    Here it is solved as a root in one number, the level v. The nearest d to g₀ with ⟨gᵢ, d⟩ >= v
    for all i is non-negative least squares, and its distance grows with v. On a fixed support the
    distance is a quadratic in v, whose root is exact. Where the gradients are Pareto stationary the
    level cannot rise above zero. There d is the projection of g₀ onto the cone of non-conflicting
    directions, if that lies in the ball.

    Args:
        gram: G = JJᵀ [n, n].
        radius: c >= 0, the radius of the ball in units of ‖g₀‖.
        eps: relative accuracy of the Gram's entries; None is 1e-15.
        weights: u > 0 [n], of g₀; None is 1/n for each.

    Returns:
        `Solution` with value the weights [n] of d itself, uᵢ + c‖g₀‖wᵢ/‖g_w‖, and objective
        minᵢ ⟨gᵢ, d⟩. Its gap is the largest failure of feasibility, complementarity or radius,
        relative to the rows and to Σ |wⱼ|nⱼ.

    Raises:
        InputError: when the Gram matrix, the radius or the weights cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import best_worst
        >>> best_worst([[1.0, 0.0], [0.0, 1.0]], 0.5).value.round(3).tolist()
        [0.75, 0.75]
    """
    gram = as_gram(gram)
    if not (np.isfinite(radius) and radius >= 0):
        raise InputError(f"radius: expected a finite number c >= 0; got {radius!r}.")
    n = len(gram)
    mean = np.full(n, 1 / n) if weights is None else as_positive("weights", weights, n)
    length = float(np.sqrt(max(mean @ gram @ mean, 0.0)))
    # without eps: at one of 1e-6 a mean of 1e-3 may still conflict
    if radius == 0 or at_rounding_floor(gram, mean):
        return Solution(mean, 0.0, 0, True, float((gram @ mean).min()))
    cosines, norms = split(gram)
    start = norms / (n * length) if weights is None else norms * (mean / length)
    if (norms == 0).any():
        return _stationary(gram, cosines, norms, mean, start, length, radius)
    hull = min_norm(gram)
    if at_rounding_floor(gram, hull.value, eps):
        return _stationary(gram, cosines, norms, mean, start, length, radius)
    search = _Levels(cosines, norms, start)
    return _finish(
        gram,
        cosines,
        norms,
        mean,
        length,
        search.root(radius, 0.0, search.highest(radius), hull.value * norms > 0),
    )


def _stationary(
    gram: Array,
    cosines: Array,
    norms: Array,
    mean: Array,
    start: Array,
    length: float,
    radius: float,
) -> Solution:
    nearest = project_dual_cone(gram, mean, RIDGE)
    moved = nearest.value - mean
    rounding = 100 * DEFAULT_EPS * float(np.abs(nearest.value) @ norms + mean @ norms) ** 2
    if float(moved @ gram @ moved) <= (radius * length) ** 2 * (1 + 1e-9) + rounding:
        return Solution(
            nearest.value,
            nearest.gap,
            nearest.iterations,
            nearest.converged,
            float((gram @ nearest.value).min()),
        )
    # the ball ends before the cone: a zero row bounds the level by zero, and does nothing else
    live = norms > 0
    search = _Levels(cosines[np.ix_(live, live)], norms[live], start[live])
    found, level, rounds = search.root(radius, search.lowest(), 0.0, None)
    multipliers = np.zeros_like(norms)
    multipliers[live] = found
    return _finish(gram, cosines, norms, mean, length, (multipliers, level, rounds))


def _finish(
    gram: Array,
    cosines: Array,
    norms: Array,
    mean: Array,
    length: float,
    found: tuple[Array, float, int],
) -> Solution:
    multipliers, level, rounds = found
    weights = mean + np.divide(
        multipliers * length, norms, out=np.zeros_like(norms), where=norms > 0
    )
    # d has to reach the level on every row, and just that on the support
    live = norms > 0
    scaled = weights * norms
    missing = (level * length * norms[live].min() / norms[live]) - (cosines @ scaled)[live]
    size = float(np.abs(scaled).sum())
    complementarity = abs(float(multipliers[live] @ missing)) / max(
        float(multipliers.sum()), 1e-300
    )
    gap = max(0.0, float(missing.max()), complementarity) / size
    return Solution(weights, gap, rounds, gap <= TOLERANCE, float((gram @ weights).min()))


class _Levels:
    """The nearest point to g₀ with ⟨gᵢ, d⟩ >= v, as a function of the level v.

    g₀ is scaled to length one; levels are in units of min n.
    """

    def __init__(self, cosines: Array, norms: Array, mean: Array) -> None:
        self.cosines, self.scale, self.root_factor = cosines, norms.min() / norms, factor(cosines)
        self.start = cosines @ mean  # cosines between each gradient and g₀

    def lowest(self) -> float:
        return float((self.start / self.scale).min())

    def highest(self, radius: float) -> float:
        return float(((radius + self.start) / self.scale).min())

    def at(self, level: float) -> tuple[Array, float] | None:
        """The multipliers x >= 0 and the distance √(xᵀCx), or None above every reachable level."""
        need = level * self.scale - self.start
        found = least_distance(self.root_factor, need)
        return (
            None
            if found is None
            else (found, math.sqrt(max(float(found @ self.cosines @ found), 0.0)))
        )

    def crossing(self, support: NDArrayBool, radius: float) -> float | None:
        """The level at which the distance is `radius` as long as just this support is active."""
        on = np.flatnonzero(support)
        if len(on) == 0:
            return None
        block = self.cosines[np.ix_(on, on)]
        rise, offset = np.linalg.lstsq(
            block, np.stack([self.scale[on], self.start[on]], 1), rcond=None
        )[0].T
        a, b, c = (
            float(rise @ self.scale[on]),
            float(rise @ self.start[on]),
            float(offset @ self.start[on]),
        )
        inside = b * b - a * (c - radius * radius)
        return (b + math.sqrt(inside)) / a if a > 0 and inside >= 0 else None

    def root(
        self, radius: float, low: float, high: float, guess: NDArrayBool | None
    ) -> tuple[Array, float, int]:
        """The multipliers where the distance is `radius`, that level, and the rounds spent.

        The levels `low` and `high` bracket it.
        """
        here = self.at(low)
        if here is not None and here[1] >= radius and low == 0.0:
            low, high = self.lowest(), 0.0
            here = None
        support = here[0] > 0 if guess is None and here is not None else guess
        best = None if here is None else (*here, low)
        rounds, tried = 0, set[float]()
        found_at: float | None = None
        while rounds < MAX_ROUNDS and high - low > 1e-15 * max(abs(low), abs(high)):
            rounds += 1
            level = self.crossing(support, radius) if support is not None else None
            if level is not None and level == found_at:  # the root of the support found there
                break
            # two supports may each point to the level where the other one was found
            exact = level is not None and low <= level <= high and level not in tried
            if level is None or not exact or (rounds > PATIENCE and rounds % 2):
                level, exact = 0.5 * (low + high), False
            tried.add(level)
            here = self.at(level)
            if here is None:
                support, high, found_at = None, level, None
                continue
            reproduced = exact and support is not None and np.array_equal(here[0] > 0, support)
            if reproduced or best is None or abs(here[1] - radius) < abs(best[1] - radius):
                best = (*here, level)
            if reproduced:  # the support is right, so its root is the answer
                break
            support, found_at = here[0] > 0, level
            low, high = (low, level) if here[1] > radius else (level, high)
        if best is None or best[1] == 0:
            return np.zeros_like(self.scale), low, rounds
        return best[0] * (radius / best[1]), best[2], rounds

"""Alpha-fair weights, by damped Newton steps.

Every gradient is improved in inverse proportion to a power of its weight.
"""

import math
from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.solvers.dual_cone import project_dual_cone
from gradsurgery.solvers.min_norm import is_stationary
from gradsurgery.solvers.scaling import DEFAULT_EPS, as_gram, as_positive, split
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

TOLERANCE = 1e-10
MAX_ITERATIONS = 300
HUGE = 1e12  # at a stationary point the minimum lies at infinity
LATE = 1e-2  # of Newton's decrement: from here on the best point is kept
EXACT = 1e-13  # a residual below this is not worth many more tries
# a step in which no weight moved by more, relative to itself, leaves an error of about its square
LAST = 3e-6
SMALLEST = 1e-5  # of alpha: below it the rounding of a logarithm decides
FAILED = 1e-6  # of the gap, below SMALL
LIMIT = (
    "As alpha tends to 0 the weights tend to those of project_dual_cone(gram, ones); "
    "fairgrad(alpha=0) is the sum of the gradients."
)
SMALL = 1e-2  # of alpha: below it the start is near the limit of alpha → 0
LARGEST = 300.0  # of a logarithm whose exponential is squared no more
ENDGAME = 1e-8  # of the same: below it steps are taken whole


def alpha_fair(
    gram: Any, alpha: float = 1.0, eps: float | None = None, preference: Any = None
) -> Solution:
    """The weights of an alpha-fair compromise between n gradients, from their Gram matrix.

    w > 0 with (Gw)ᵢ = wᵢ^(−1/α) for every i (Ban & Ji 2024, equation 4; for α = 1 Navon et al.
    2022, equation 2). They minimise the strictly convex ½wᵀGw − Σ φ(wᵢ) with φ' = w^(−1/α), where
    φ = log for α = 1, so that they are unique. For α → ∞ improvements tend to equal ones,
    (Gw)ᵢ → 1.

    With preferences p the condition is (Gw)ᵢ = (pᵢ/wᵢ)^(1/α), the optimum of Σ pᵢ(Gw)ᵢ^(1−α)/(1−α).

    With xᵢ = wᵢnᵢ and the cosines C it is (Cx)ᵢ = tᵢ xᵢ^(−1/α), tᵢ = pᵢ^(1/α) nᵢ^(1/α − 1).
    Norms enter by a power only, and for α = 1 not at all. Newton's steps are damped so that they
    stay positive and decrease the function.

    Args:
        gram: G = JJᵀ [n, n].
        alpha: α >= 1e-5. As α → 0 w tends to argmin wᵀGw s.t. w >= 1, the projection of the sum.
        eps: relative accuracy of the Gram's entries; None is 1e-15.
        preference: p > 0 [n]; None is 1 for all.

    Returns:
        `Solution` with value w [n], objective ‖Jᵀw‖², and gap maxᵢ |(Cx)ᵢ − tᵢxᵢ^(−1/α)| / Σ xⱼ.
        The weights are zero where the gradients are Pareto stationary up to rounding, since no
        finite weights exist there.

    Raises:
        InputError: when the Gram matrix, α or p cannot be used, or no weights are found for an α
            below 0.01.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import alpha_fair
        >>> alpha_fair([[1.0, 0.0], [0.0, 4.0]]).value.tolist()
        [1.0, 0.5]
    """
    gram = as_gram(gram)
    if not (np.isfinite(alpha) and alpha > 0):
        raise InputError(f"alpha: expected a finite number > 0; got {alpha!r}.")
    if alpha < SMALLEST:
        raise InputError(
            f"alpha: {alpha!r} is too small to be computed; give {SMALLEST:g} or more. {LIMIT}"
        )
    cosines, norms = split(gram)
    n = len(norms)
    if (norms == 0).any():
        return Solution(np.zeros(n), 0.0, 0, True, 0.0)
    power = 1 / alpha
    # logs of t, and the factor that brings them to mean zero: x → σx turns t into t·σ^(1 + power)
    logs = (power - 1) * np.log(norms)
    if preference is not None:
        logs += power * np.log(as_positive("preference", preference, n))
    shift = float(logs.mean()) / (1 + power)
    logs -= (1 + power) * shift
    if n == 2 and alpha == 1 and preference is None:
        point, iterations = np.full(2, 1 / math.sqrt(max(1 + float(cosines[0, 1]), DEFAULT_EPS))), 0
    else:
        start = (
            None
            if alpha >= SMALL
            else norms * math.exp(-shift) * _nearly_the_limit(gram, alpha, preference)
        )
        point, iterations = _newton(cosines, logs, power, start)
    image = cosines @ point
    if not _not_stationary(image, point, eps) and is_stationary(gram, eps):
        return Solution(np.zeros(n), 0.0, iterations, True, 0.0)
    gap = float(np.abs(image - _pull(logs, point, power)).max()) / float(point.sum())
    weights = point * math.exp(shift) / norms
    if alpha < SMALL and not (gap <= FAILED and np.isfinite(weights).all()):
        raise InputError(
            f"alpha: no weights were found with {alpha!r} for these gradients; "
            f"give {SMALL:g} or more. {LIMIT}"
        )
    return Solution(weights, gap, iterations, gap <= TOLERANCE, float(weights @ gram @ weights))


def _not_stationary(image: Array, point: Array, eps: float | None) -> bool:
    """Whether the point certifies that the gradients are not stationary.

    A unit direction that improves every unit row by m leaves no combination of them shorter than
    m Σwⱼnⱼ.
    """
    least = float(image.min())
    return least > 0 and least * least > 20 * (eps or DEFAULT_EPS) * float(point @ image)


def _newton(cosines: Array, logs: Array, power: float, start: Array | None) -> tuple[Array, int]:
    """The minimum of ½xᵀCx − Σ tφ(x).

    Steps are taken in relative units δ = dx/x, in which the Hessian is well scaled.
    """
    n = len(logs)
    total = cosines.sum(1)
    point = start
    if point is None:
        point = np.exp((logs - np.log(np.where(total > 0.1, total, 1.0))) / (1 + power))
    best, least = point, math.inf
    stalled, decrease, change = 0, math.inf, np.ones(n)
    for iteration in range(1, MAX_ITERATIONS + 1):
        image = cosines @ point
        pull = _pull(logs, point, power)
        residuals = image - pull
        slope = residuals * point
        if decrease <= LATE:
            residual = float(np.abs(residuals).max()) / float(point.sum())
            if residual < least:
                best, least, stalled = point, residual, 0
            elif decrease <= ENDGAME:  # quadratic convergence is over: what is left is rounding
                stalled += 1
            if (
                residual <= 1e-15
                or stalled >= (2 if least <= EXACT else 5)
                or (residual <= EXACT and np.abs(change).max() <= LAST)
            ):
                return best, iteration
        else:
            best = point
            if iteration % 8 == 0 and point.max() > HUGE:
                return best, iteration
        hessian = cosines * point * point[:, None]
        hessian.flat[:: n + 1] += power * pull * point
        try:
            change = np.asarray(np.linalg.solve(hessian, -slope), dtype=np.float64)
        except np.linalg.LinAlgError:
            return best, iteration
        decrease = -float(slope @ change)  # Newton's decrement, squared
        if not math.isfinite(decrease):
            return best, iteration
        # near the end the function no longer tells small coordinates apart: each has its own bound
        whole = decrease <= ENDGAME or (decrease < 0.01 and np.abs(change).max() < 0.3)
        factors = (
            _bounded(change) if whole else _search(cosines, pull * point, power, point, change)
        )
        point = point * factors
    return best, MAX_ITERATIONS


def _pull(logs: Array, point: Array, power: float) -> Array:
    """t·x^(−power) from the logarithms of t, as each of the two factors may overflow."""
    return np.asarray(np.exp(np.minimum(logs - power * np.log(point), LARGEST)))


def _nearly_the_limit(gram: Array, alpha: float, preference: Any) -> Array:
    """Weights to start from for a small α.

    As α → 0 they tend to argmin wᵀGw s.t. w >= p, the projection of the sum.
    """
    wanted = np.ones(len(gram)) if preference is None else np.asarray(preference, dtype=np.float64)
    limit = project_dual_cone(gram, wanted).value
    gain = gram @ limit
    tight = gain > 1e-8 * (np.sqrt(np.diagonal(gram)) * float(np.sqrt(np.diagonal(gram)) @ limit))
    return np.asarray(limit * np.where(tight, gain, 1.0) ** -alpha)


def _bounded(change: Array) -> Array:
    """1 + δ, with no coordinate brought nearer to zero than a twentieth of itself."""
    return np.asarray(np.maximum(1 + change, 0.05))


def _search(cosines: Array, here: Array, power: float, point: Array, change: Array) -> Array:
    """The factors 1 + sδ of the first step that lets the function fall enough (Armijo).

    Tried with each coordinate bounded by itself, then with all of them shortened together.
    """
    image = cosines @ point
    lowest = float(change.min())
    longest = min(1.0, -0.95 / lowest) if lowest < 0 else 1.0
    factors = _bounded(change)
    for tried in range(44):
        if tried:
            factors = (
                _bounded(change * 0.25**tried)
                if tried < 4
                else 1 + longest * 0.5 ** (tried - 4) * change
            )
        move = point * (factors - 1)
        if power == 1:
            barrier = float(here @ np.log(factors))
        else:
            grown = np.expm1(np.minimum((1 - power) * np.log(factors), LARGEST))
            barrier = float(here @ grown) / (1 - power)
        linear = float(move @ image)
        slope = linear - float(here @ (factors - 1))
        if slope < 0 and linear + 0.5 * float(move @ (cosines @ move)) - barrier <= 0.1 * slope:
            break
    return factors

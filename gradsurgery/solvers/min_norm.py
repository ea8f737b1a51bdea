"""The point of least norm in the convex hull of the gradients.

A closed form for two, an exact active set for n.
"""

from typing import Any, Literal, get_args

import numpy as np

from gradsurgery.errors import InputError, one_of
from gradsurgery.solvers import reference
from gradsurgery.solvers.frank_wolfe import frank_wolfe
from gradsurgery.solvers.gaps import hull_gap
from gradsurgery.solvers.nonnegative import nonnegative_least_squares
from gradsurgery.solvers.scaling import as_gram, at_rounding_floor, factor, split
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

Method = Literal["auto", "active-set", "frank-wolfe", "cvxpy"]
EXACT: tuple[Method, ...] = ("auto", "active-set")  # to rounding; the others to about 1e-6
TOLERANCE = 1e-10
POLISH_ABOVE = 1e-13


def min_norm(gram: Any, method: Method = "auto") -> Solution:
    """The min-norm point of the convex hull of n gradients, from their Gram matrix.

    w = argmin wᵀGw over the simplex (w >= 0, Σw = 1). d = Jᵀw is zero where the gradients are
    Pareto stationary. Elsewhere ⟨gᵢ, d⟩ >= ‖d‖² > 0 for every i, so that a small enough step along
    −d decreases every objective (Désidéri 2012).

    "auto" takes the closed form for two objectives and the active set for more. The active set is
    non-negative least squares on [L; sᵀ] x = [0; 1] with LᵀL the matrix of cosines,
    sᵢ = min n / nᵢ and wᵢ ∝ sᵢxᵢ. So norms that differ by many orders of magnitude cost no
    accuracy. "frank-wolfe" iterates with away steps; "cvxpy" is the slow reference and needs the
    extra `cvxpy`.

    Args:
        gram: G = JJᵀ [n, n], symmetric positive semi-definite, finite.
        method: "auto", "active-set", "frank-wolfe" or "cvxpy".

    Returns:
        `Solution` with value w [n], objective wᵀGw, and gap maxᵢ (wᵀGw − (Gw)ᵢ) / (nᵢ Σⱼ wⱼnⱼ),
        which is zero at the optimum. With a row of norm zero objective and gap are zero.

    Raises:
        InputError: when the Gram matrix or the method cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import min_norm
        >>> min_norm([[1.0, 0.0], [0.0, 3.0]]).value.round(2).tolist()
        [0.75, 0.25]
    """
    if method not in get_args(Method):
        raise InputError(one_of("method", str(method), get_args(Method)))
    gram = as_gram(gram)
    cosines, norms = split(gram)
    zero = norms == 0
    if zero.any():
        return Solution(zero / zero.sum(), 0.0, 0, True, 0.0)
    if method == "cvxpy":
        return reference.min_norm(gram)
    if len(norms) == 1:
        return Solution(np.ones(1), 0.0, 0, True, float(gram[0, 0]))
    if method == "frank-wolfe":
        return frank_wolfe(gram)
    if method == "auto" and len(norms) == 2:
        weights, iterations = _closed_form(cosines[0, 1], norms), 0
    else:
        found = _active_set(cosines, norms)
        if found is None:
            return frank_wolfe(gram, tolerance=TOLERANCE, max_iterations=100_000)
        weights, iterations = found, int(np.count_nonzero(found))
        if hull_gap(cosines, norms, weights) > POLISH_ABOVE:
            weights = min(
                (weights, _polish(gram, norms, weights)), key=lambda w: hull_gap(cosines, norms, w)
            )
    gap = hull_gap(cosines, norms, weights)
    return Solution(weights, gap, iterations, gap <= TOLERANCE, float(weights @ gram @ weights))


def is_stationary(gram: Array, eps: float | None = None) -> bool:
    """Whether the gradients are Pareto stationary up to rounding.

    They are where ‖d‖² <= 10·eps·(Σ wⱼnⱼ)² at the min-norm point d = Jᵀw.
    """
    return at_rounding_floor(gram, min_norm(gram).value, eps)


def _closed_form(cosine: float, norms: Array) -> Array:
    # wᵢ ∝ nⱼ/nᵢ − cos, the minimum on the line, clipped to the segment
    ratio = norms[1] / norms[0]
    weights = np.maximum(np.array([ratio - cosine, 1 / ratio - cosine]), 0.0)
    return np.asarray(weights / weights.sum() if weights.any() else np.full(2, 0.5))


def _active_set(cosines: Array, norms: Array) -> Array | None:
    n = len(norms)
    scale = norms.min() / norms
    target = np.zeros(n + 1)
    target[n] = 1.0
    found = nonnegative_least_squares(np.vstack([factor(cosines), scale]), target)
    if found is None:
        return None
    weights: Array = scale * found
    total = float(weights.sum())
    return weights / total if total > 0 else None


def _polish(gram: Array, norms: Array, weights: Array) -> Array:
    """Iterative refinement on the support with residuals in extended precision.

    Where huge rows nearly cancel beside a small one, wᵀGw is a difference of numbers eps⁻¹ times
    larger, and the last digits of w decide. Newton steps with precise residuals recover them.
    """
    on = np.flatnonzero(weights > 0)
    k = len(on)
    scale = norms[on].min() / norms[on]
    wide = np.longdouble
    cosines = (
        gram[np.ix_(on, on)].astype(wide) / norms[on].astype(wide) / norms[on].astype(wide)[:, None]
    )
    system = np.zeros((k + 1, k + 1))
    system[:k, :k] = cosines
    system[:k, k] = system[k, :k] = -scale
    point = weights[on] / scale
    for _ in range(3):
        image = cosines @ point.astype(wide)
        level = (point @ image) / (scale @ point)
        residual = (image - scale * level).astype(np.float64)
        candidate = point + np.linalg.lstsq(system, np.append(-residual, 0.0), rcond=None)[0][:k]
        if not (candidate > 0).all():
            break
        point = candidate
    polished = np.zeros_like(weights)
    polished[on] = scale * point
    polished /= polished.sum()
    return polished

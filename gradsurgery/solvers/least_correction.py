"""The least correction of a step after which no objective rises to first order."""

from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.solvers.nonnegative import nonnegative_least_squares
from gradsurgery.solvers.scaling import DEFAULT_EPS, as_gram, split, well_conditioned
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

TOLERANCE = 1e-10
# Rows that cancel but for rounding have multipliers of any size. The largest ridge that costs
# nothing bounds them; what is left of it is taken away by solving again on the support.
RIDGES = (1e-10, 1e-12, 1e-14, 1e-16, 0.0)
NOTHING = 1e-13


def least_correction(
    products: Any,
    rises: Any,
    length: float | None = None,
    eps: float | None = None,
) -> Solution:
    """The multipliers of the least correction of a step u after which no objective rises.

    u' = argmin ½(u' − u)ᵀP⁻¹(u' − u) s.t. Ju' <= 0 is u − PJᵀλ, with the λ >= 0 for which
    Aλ >= c and λᵀ(Aλ − c) = 0, where A = JPJᵀ and c = Ju. u' = 0 is feasible, so that λ exists; u'
    is unique where λ is not. P is diagonal and at least 0, and u is 0 where P is. Solved as
    non-negative least squares on the cosines of A, with the norms apart. In units of ‖u‖ it is
    exact to about 1e-16 over their least eigenvalue, since A itself is no more exact.

    Args:
        products: A [n, n]. Rows with a diagonal of 0 are left out.
        rises: c [n], by how much the step changes each objective to first order.
        length: ‖u‖ in P⁻¹, the unit of the gap; None is maxⱼ |cⱼ|/aⱼ + Σⱼ λⱼaⱼ, with aⱼ² = Aⱼⱼ.
        eps: relative accuracy of the entries of A; None is 1e-15.

    Returns:
        `Solution` with value λ [n], zeros where no c is above 0, and objective λᵀAλ, the square
        of the correction in P⁻¹. Its gap is maxᵢ |min(λᵢaᵢ, (Aλ − c)ᵢ/aᵢ)| / length: what is
        infeasible, and what is not complementary.

    Raises:
        InputError: when the numbers cannot be used.
        NonFiniteError: when A is not finite.

    Example:
        >>> from gradsurgery.solvers import least_correction
        >>> least_correction([[1.0, -1.0], [-1.0, 4.0]], [2.0, -1.0]).value.round(6).tolist()
        [2.333333, 0.333333]
    """
    products = as_gram(products)
    rises = np.array(rises, dtype=np.float64)
    if rises.shape != products.shape[:1] or not np.isfinite(rises).all():
        raise InputError(
            f"rises: expected {len(products)} finite numbers, one per objective; "
            f"got {rises.tolist()}."
        )
    value = np.zeros_like(rises)
    norms = np.sqrt(products.diagonal())
    live = (norms > 0) & np.isfinite(rises / np.where(norms > 0, norms, 1.0))
    if not (rises[live] > 0).any():
        return Solution(value, 0.0, 0, True, 0.0)
    cosines, norms = split(products[np.ix_(live, live)])
    scaled = rises[live] / norms
    size = float(np.abs(scaled).max())
    unit = None if length is None else length / size
    found, gap = _multipliers(cosines, scaled / size, DEFAULT_EPS if eps is None else eps, unit)
    if found is None:
        return Solution(value, np.inf, 0, False, 0.0)
    value[live] = found * size / norms
    square = float(found @ cosines @ found) * size * size
    return Solution(value, gap, int(np.count_nonzero(found)), gap <= TOLERANCE, square)


def correction_gap(
    cosines: Array, rises: Array, multipliers: Array, unit: float | None = None
) -> float:
    """How far λ is from a solution of the complementarity problem, in a unit of length."""
    slack = cosines @ multipliers - rises
    size = float(multipliers.sum() + np.abs(rises).max()) if unit is None else unit
    return float(np.abs(np.minimum(multipliers, slack)).max()) / size


def _multipliers(
    cosines: Array, rises: Array, eps: float, unit: float | None
) -> tuple[Array | None, float]:
    """λ and its gap, for rows of length one and a largest rise of size one."""
    first = int(rises.argmax())
    alone = np.zeros_like(rises)
    alone[first] = rises[first]
    if (cosines[first] * rises[first] >= rises - eps).all():  # as in most steps: one row is enough
        return alone, correction_gap(cosines, rises, alone, unit)
    n, best, least = len(rises), None, np.inf
    root, point = span(cosines, rises, eps)
    for ridge in (0.0,) if well_conditioned(cosines, eps) is not None else RIDGES:
        rows, target = root, point
        if ridge:
            rows = np.concatenate([root, np.sqrt(ridge) * np.eye(n)])
            target = np.concatenate([point, np.zeros(n)])
        found = nonnegative_least_squares(rows, target)
        if found is not None:
            found = _polished(cosines, rises, found)
            gap = correction_gap(cosines, rises, found, unit)
            if gap < least:
                best, least = found, gap
        if least <= NOTHING:
            break
    return best, least


def span(cosines: Array, rises: Array, eps: float = DEFAULT_EPS) -> tuple[Array, Array]:
    """The rows in coordinates of their span, and the part of the step in it.

    L [k, n] with LᵀL = C, and the b [k] with Lᵀb = c; eigenvalues below rounding are left out.
    """
    upper = well_conditioned(cosines, eps)
    if upper is not None:
        return upper, np.asarray(np.linalg.solve(upper.T, rises))
    values, vectors = np.linalg.eigh(cosines)
    kept = values > len(cosines) * eps * values[-1]
    root = np.sqrt(values[kept])
    return root[:, None] * vectors[:, kept].T, (vectors[:, kept].T @ rises) / root


def _polished(cosines: Array, rises: Array, found: Array) -> Array:
    """Refined on its support, where rows that nearly cancel have made λ large."""
    on = np.flatnonzero(found > 0)
    if not len(on):
        return found
    block, wide = cosines[np.ix_(on, on)], cosines[np.ix_(on, on)].astype(np.longdouble)
    best, least = found, np.abs(rises[on] - block @ found[on]).max()
    for _ in range(3):
        if least <= DEFAULT_EPS:  # any further step is along rows that cancel
            break
        left = (rises[on] - wide @ best[on].astype(np.longdouble)).astype(np.float64)
        values = best[on] + np.linalg.lstsq(block, left, rcond=len(on) * DEFAULT_EPS)[0]
        miss = np.abs(rises[on] - wide @ values.astype(np.longdouble)).max()
        if not (values >= 0).all() or miss >= least:
            break
        best, least = np.zeros_like(found), miss
        best[on] = values
    return best

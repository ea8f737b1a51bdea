"""The least correction of a step after which no objective rises to first order."""

from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.solvers.nonnegative import nonnegative_least_squares
from gradsurgery.solvers.scaling import DEFAULT_EPS, as_gram, split, well_conditioned
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

TOLERANCE = 1e-10


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
    non-negative least squares on the cosines of A, with the norms apart.

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
    found = _multipliers(cosines, scaled / size, DEFAULT_EPS if eps is None else eps)
    if found is None:
        return Solution(value, np.inf, 0, False, 0.0)
    unit = float(found.sum()) + 1 if length is None else length / size
    gap = correction_gap(cosines, scaled / size, found, unit)
    value[live] = found * size / norms
    square = float(found @ cosines @ found) * size * size
    return Solution(value, gap, int(np.count_nonzero(found)), gap <= TOLERANCE, square)


def correction_gap(cosines: Array, rises: Array, multipliers: Array, unit: float) -> float:
    """How far λ is from a solution of the complementarity problem, in a unit of length."""
    slack = cosines @ multipliers - rises
    return float(np.abs(np.minimum(multipliers, slack)).max()) / unit


def _multipliers(cosines: Array, rises: Array, eps: float) -> Array | None:
    """λ of rows of length one, the largest rise of size one."""
    first = int(rises.argmax())
    alone = np.zeros_like(rises)
    alone[first] = rises[first]
    if (cosines[first] * rises[first] >= rises).all():  # as in most steps: one row is enough
        return alone
    root, point = span(cosines, rises, eps)
    found = nonnegative_least_squares(root, point)
    return None if found is None else _polished(cosines, rises, found)


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
        left = (rises[on] - wide @ best[on].astype(np.longdouble)).astype(np.float64)
        values = best[on] + np.linalg.lstsq(block, left, rcond=None)[0]
        miss = np.abs(rises[on] - wide @ values.astype(np.longdouble)).max()
        if not (values >= 0).all() or miss >= least:
            break
        best, least = np.zeros_like(found), miss
        best[on] = values
    return best

"""The direction nearest to a given one whose improvements are at least given floors."""

from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.solvers.nonnegative import least_distance
from gradsurgery.solvers.scaling import as_gram, factor, split
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

TOLERANCE = 1e-9


def nearest_above(gram: Any, weights: Any, floors: Any) -> Solution:
    """The direction nearest to Jᵀu that improves each gradient by at least its floor.

    argmin ‖d − Jᵀu‖ s.t. ⟨gᵢ, d⟩ >= bᵢ, with d = Jᵀv. By duality v = u + z with z >= 0, which is a
    least-distance problem on the cosines, with the norms apart.

    Args:
        gram: G = JJᵀ [n, n].
        weights: u [n].
        floors: b [n], in units of the Gram matrix; −inf leaves a gradient free.

    Returns:
        `Solution` with value v [n], objective ‖d − Jᵀu‖², and gap the largest missing part of a
        floor, relative to nᵢ Σⱼ|vⱼ|nⱼ. Where no direction reaches all floors, value is u, the gap
        infinite and `converged` False.

    Raises:
        InputError: when the numbers cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import nearest_above
        >>> floors = [-float("inf"), 0.0]
        >>> found = nearest_above([[1.0, -1.0], [-1.0, 2.0]], [1.0, 0.0], floors)
        >>> found.value.round(6).tolist()
        [1.0, 0.5]
    """
    gram = as_gram(gram)
    cosines, norms = split(gram)
    start, floors = np.array(weights, dtype=np.float64), np.array(floors, dtype=np.float64)
    if (
        start.shape != norms.shape
        or floors.shape != norms.shape
        or not np.isfinite(start).all()
        or not (floors < np.inf).all()
    ):
        raise InputError(
            f"weights and floors: expected {len(norms)} numbers each, none of them NaN or +inf; "
            f"got {start.tolist()} and {floors.tolist()}."
        )
    scaled = start * norms
    size = float(np.abs(scaled).sum()) or 1.0
    bound = np.flatnonzero((floors > -np.inf) & (norms > 0))
    if (floors[norms == 0] > 0).any():
        return _infeasible(start)
    need = (floors[bound] / norms[bound] - cosines[bound] @ scaled) / size
    among = cosines[np.ix_(bound, bound)]
    # one floor, or floors that the start reaches, need no search: a row's cosine with itself is one
    easy = len(bound) <= 1 or need.max() <= 0
    found = np.maximum(need, 0.0) if easy else least_distance(factor(among), need)
    if found is None:
        return _infeasible(start)
    missing = need - among @ found
    gap = max(0.0, float(missing.max(initial=0.0))) / (1 + float(found.sum()))
    if gap > TOLERANCE:
        return _infeasible(start)
    value = start.copy()
    value[bound] += found * size / norms[bound]
    moved = value - start
    return Solution(value, gap, int(np.count_nonzero(found)), True, float(moved @ gram @ moved))


def _infeasible(start: Array) -> Solution:
    return Solution(start, np.inf, 0, False)

"""Projection of a combination of gradients onto the cone of non-conflicting directions."""

from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.solvers.flat import bounded_multipliers
from gradsurgery.solvers.gaps import cone_gap
from gradsurgery.solvers.nonnegative import nonnegative_least_squares
from gradsurgery.solvers.pivoting import complementary
from gradsurgery.solvers.scaling import accuracy, as_gram, factor, split, well_conditioned
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

TOLERANCE = 1e-10
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])


def project_dual_cone(
    gram: Any,
    weights: Any = None,
    ridge: float = 0.0,
    eps: float | None = None,
) -> Solution:
    """The non-conflicting direction nearest to Jᵀu, from the Gram matrix.

    min ‖d − Jᵀu‖ s.t. Jd >= 0. By duality d = Jᵀv with v = argmin vᵀGv s.t. v >= u (Lopez-Paz &
    Ranzato 2017, equation 11; Quinton & Rey 2024, proposition 1). That is non-negative least
    squares in v − u, solved on the cosines, with the norms apart.

    Rows that cancel but for rounding call for weights as large as one over that rounding, and d is
    then noise of any length. There the weights are bounded (`gradsurgery.solvers.flat`), so that d
    is no longer than Jᵀu. No ⟨gᵢ, d⟩ falls below −ρ nᵢ Σ |vⱼ|nⱼ by it, with ρ the larger of 5e-11
    and ten times the accuracy of the Gram's entries. In float64 this changes d where gradients
    cancel up to a relative 1e-5 or less; above it d is as exact as the Gram matrix allows.

    Args:
        gram: G = JJᵀ [n, n].
        weights: u [n], any sign; None is 1/n for each.
        ridge: ρ of one's own, which adds ρ·Σ (vᵢ − uᵢ)²nᵢ² everywhere; 0 bounds the weights only
            where rounding would decide them.
        eps: relative accuracy of the Gram's entries; None is 1e-6 for float32 and 1e-15 else.

    Returns:
        `Solution` with value v [n], which is u itself where Jᵀu conflicts with nothing, and
        objective vᵀGv. Its gap is the larger of maxᵢ −(Gv)ᵢ / (nᵢ s) (infeasibility) and
        |(v − u)ᵀGv| / s² (complementarity), where s is the larger of Σ |uⱼ|nⱼ and Σ |vⱼ|nⱼ.

    Raises:
        InputError: when the Gram matrix or the weights cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import project_dual_cone
        >>> project_dual_cone([[1.0, -2.0], [-2.0, 5.0]], [1.0, 0.0]).value.round(6).tolist()
        [1.0, 0.4]
    """
    eps = accuracy(gram, eps)
    gram = as_gram(gram)
    cosines, norms = split(gram)
    start = (
        np.full(len(norms), 1 / len(norms))
        if weights is None
        else np.array(weights, dtype=np.float64)
    )
    if start.shape != norms.shape or not np.isfinite(start).all():
        raise InputError(
            f"weights: expected {len(norms)} finite numbers, one per gradient; "
            f"got {np.asarray(weights).tolist()}."
        )
    scaled = start * norms
    size = float(np.abs(scaled).sum())
    if size == 0:
        return Solution(start, 0.0, 0, True, 0.0)
    scaled = scaled / size
    added = np.zeros_like(scaled)
    live = norms > 0
    if (cosines @ scaled < 0).any():
        found = _multipliers(cosines[np.ix_(live, live)], scaled[live], ridge, eps)
        if found is None:
            return Solution(start, np.inf, 0, False, float(start @ gram @ start))
        added[live], ridge = found
    gap = cone_gap(cosines, scaled + added, added)
    value = start + np.divide(added * size, norms, out=np.zeros_like(norms), where=live)
    close = gap <= max(TOLERANCE, ridge)
    return Solution(value, gap, int(np.count_nonzero(added)), close, float(value @ gram @ value))


def _multipliers(
    cosines: Array,
    start: Array,
    ridge: float,
    eps: float,
) -> tuple[Array, float] | None:
    """z >= 0 of one projection and the ridge it was found on."""
    if ridge > 0:
        n, root = len(cosines), factor(cosines)
        target = np.append(-(root @ start), np.zeros(n))
        found = nonnegative_least_squares(np.vstack([root, np.sqrt(ridge) * np.eye(n)]), target)
        return None if found is None else (found, ridge)
    upper = well_conditioned(cosines, eps)
    if upper is None:
        bounded = bounded_multipliers(cosines, start[None], eps)
        return None if bounded is None else (bounded[0][0], bounded[1])
    found = nonnegative_least_squares(upper, -(upper @ start))
    return None if found is None else (found, 0.0)


def project_each(gram: Any, weights: Any = None, eps: float | None = None) -> Solution:
    """The sum of all gradients, each first projected onto the cone of non-conflicting directions.

    d = Jᵀv with v = Σᵢ argmin zᵀGz s.t. z >= uᵢeᵢ (Quinton & Rey 2024, definition 5). The length of
    a projection is proportional to that of what is projected. So the n problems are solved for unit
    rows, all on one matrix of cosines.

    Args:
        gram: G = JJᵀ [n, n].
        weights: u >= 0 [n]; None is 1/n for each.
        eps: relative accuracy of the Gram's entries; None is 1e-6 for float32 and 1e-15 else.

    Returns:
        `Solution` with value v [n], objective vᵀGv, and gap the largest of those of the
        projections, each as in `project_dual_cone`.

    Raises:
        InputError: when the Gram matrix or the weights cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import project_each
        >>> project_each([[1.0, -2.0], [-2.0, 5.0]], [1.0, 1.0]).value.round(6).tolist()
        [3.0, 1.4]
    """
    eps = accuracy(gram, eps)
    gram = as_gram(gram)
    cosines, norms = split(gram)
    n = len(norms)
    start = np.full(n, 1 / n) if weights is None else np.array(weights, dtype=np.float64)
    if start.shape != norms.shape or not np.isfinite(start).all() or (start < 0).any():
        raise InputError(
            f"weights: expected {n} finite numbers >= 0, one per gradient; "
            f"got {np.asarray(weights).tolist()}."
        )
    if cosines.min() >= 0:
        return Solution(start, 0.0, 0, True, float(start @ gram @ start))
    live = np.flatnonzero(norms > 0)
    block = cosines if len(live) == n else cosines[np.ix_(live, live)]
    added: Array | None
    ridge = 0.0
    if n == 2 and len(live) == 2:  # of two unit rows each loses its component along the other
        added = -cosines[0, 1] * SWAP
    elif well_conditioned(block, eps) is not None:
        added = complementary(block, np.eye(len(live)))
    else:
        bounded = bounded_multipliers(block, np.eye(len(live)), eps)
        added, ridge = (None, 0.0) if bounded is None else bounded
    if added is None:
        return Solution(start, np.inf, 0, False, float(start @ gram @ start))
    image = block + added @ block
    size = 1 + added.sum(1)
    gap = max(
        0.0,
        float((-image.min(1) / size).max()),
        float((np.abs(np.einsum("ij,ij->i", added, image)) / size**2).max()),
    )
    value = start.copy()
    value[live] += ((start * norms)[live] @ added) / norms[live]
    close = gap <= max(TOLERANCE, ridge)
    return Solution(value, gap, int(np.count_nonzero(added)), close, float(value @ gram @ value))

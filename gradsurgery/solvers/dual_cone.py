"""Projection of a combination of gradients onto the cone of directions that hurt none of them."""

from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.solvers.nonnegative import nonnegative_least_squares
from gradsurgery.solvers.pivoting import complementary
from gradsurgery.solvers.scaling import as_gram, factor, split
from gradsurgery.solvers.solution import Array, Solution

TOLERANCE = 1e-10
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])


def project_dual_cone(gram: Any, weights: Any = None, ridge: float = 0.0) -> Solution:
    """The direction nearest to Jᵀu among those that conflict with no gradient, from the Gram matrix.

    min ‖d − Jᵀu‖ s.t. Jd >= 0. By duality d = Jᵀv with v = argmin vᵀGv s.t. v >= u (Lopez-Paz & Ranzato 2017,
    equation 11; Quinton & Rey 2024, proposition 1), which is non-negative least squares in v − u. It is solved on
    the cosines, with the norms apart.

    Args:
        gram: G = JJᵀ [n, n].
        weights: u [n], any sign; None is 1/n for each.
        ridge: ρ adds ρ·Σ (vᵢ − uᵢ)²nᵢ², relative to each row: no ⟨gᵢ, d⟩ falls below −ρ nᵢ Σ |vⱼ|nⱼ by it, and rows that are
            opposite but for rounding no longer call for weights as large as one over that rounding.

    Returns:
        `Solution` with value v [n], objective vᵀGv, and gap the larger of maxᵢ −(Gv)ᵢ / (nᵢ s) (infeasibility) and
        |(v − u)ᵀGv| / s² (complementarity), where s is the larger of Σ |uⱼ|nⱼ and Σ |vⱼ|nⱼ. v is u itself where Jᵀu conflicts with nothing.

    Raises:
        InputError: when the Gram matrix or the weights cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import project_dual_cone
        >>> project_dual_cone([[1.0, -2.0], [-2.0, 5.0]], [1.0, 0.0]).value.round(6).tolist()
        [1.0, 0.4]
    """
    gram = as_gram(gram)
    cosines, norms = split(gram)
    start = np.full(len(norms), 1 / len(norms)) if weights is None else np.array(weights, dtype=np.float64)
    if start.shape != norms.shape or not np.isfinite(start).all():
        raise InputError(f"weights: expected {len(norms)} finite numbers, one a gradient; got {np.asarray(weights).tolist()}.")
    scaled = start * norms
    size = float(np.abs(scaled).sum())
    if size == 0:
        return Solution(start, 0.0, 0, True, 0.0)
    scaled = scaled / size
    added = np.zeros_like(scaled)
    live = norms > 0
    if (cosines @ scaled < 0).any():
        root = factor(cosines[np.ix_(live, live)])
        target = -(root @ scaled[live])
        if ridge > 0:
            root, target = np.vstack([root, np.sqrt(ridge) * np.eye(len(root))]), np.append(target, np.zeros(len(root)))
        found = nonnegative_least_squares(root, target)
        if found is None:
            return Solution(start, np.inf, 0, False, float(start @ gram @ start))
        added[live] = found
    gap = cone_gap(cosines, scaled + added, added)
    value = start + np.divide(added * size, norms, out=np.zeros_like(norms), where=live)
    return Solution(value, gap, int(np.count_nonzero(added)), gap <= TOLERANCE, float(value @ gram @ value))


def project_each(gram: Any, weights: Any = None) -> Solution:
    """The sum of all gradients, each first projected onto the cone of directions that hurt none (Quinton & Rey 2024, definition 5).

    d = Jᵀv with v = Σᵢ argmin zᵀGz s.t. z >= uᵢeᵢ. A projection is as long as what is projected, so the n problems are
    solved for unit rows, all on one matrix of cosines.

    Args:
        gram: G = JJᵀ [n, n].
        weights: u >= 0 [n]; None is 1/n for each.

    Returns:
        `Solution` with value v [n], objective vᵀGv, and gap the largest of those of the projections (`project_dual_cone`).

    Raises:
        InputError: when the Gram matrix or the weights cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import project_each
        >>> project_each([[1.0, -2.0], [-2.0, 5.0]], [1.0, 1.0]).value.round(6).tolist()
        [3.0, 1.4]
    """
    gram = as_gram(gram)
    cosines, norms = split(gram)
    n = len(norms)
    start = np.full(n, 1 / n) if weights is None else np.array(weights, dtype=np.float64)
    if start.shape != norms.shape or not np.isfinite(start).all() or (start < 0).any():
        raise InputError(f"weights: expected {n} finite numbers >= 0, one a gradient; got {np.asarray(weights).tolist()}.")
    if cosines.min() >= 0:
        return Solution(start, 0.0, 0, True, float(start @ gram @ start))
    live = np.flatnonzero(norms > 0)
    block = cosines if len(live) == n else cosines[np.ix_(live, live)]
    # of two unit rows each loses its component along the other
    added = -cosines[0, 1] * SWAP if n == 2 and len(live) == 2 else complementary(block, np.eye(len(live)))
    if added is None:
        return Solution(start, np.inf, 0, False, float(start @ gram @ start))
    image = block + added @ block
    size = 1 + added.sum(1)
    gap = max(0.0, float((-image.min(1) / size).max()), float((np.abs(np.einsum("ij,ij->i", added, image)) / size**2).max()))
    value = start.copy()
    value[live] += ((start * norms)[live] @ added) / norms[live]
    return Solution(value, gap, int(np.count_nonzero(added)), gap <= TOLERANCE, float(value @ gram @ value))


def cone_gap(cosines: Array, point: Array, multipliers: Array) -> float:
    """Infeasibility and failed complementarity of a direction Uᵀ·point, relative to the size of its terms."""
    image = cosines @ point
    size = max(float(np.abs(point).sum()), float(np.abs(point - multipliers).sum())) or 1.0
    return max(0.0, -float(image.min()) / size, abs(float(multipliers @ image)) / size**2)

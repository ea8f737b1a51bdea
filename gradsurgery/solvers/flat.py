"""Cones that are flat up to rounding: their multipliers, kept in bounds by two steps on a ridge."""

import numpy as np

from gradsurgery.solvers.pivoting import complementary
from gradsurgery.solvers.scaling import DEFAULT_EPS
from gradsurgery.solvers.solution import Array

RIDGE = 5e-11  # well above float64 rounding, and half of what a gap may be
MARGIN = 10.0  # of the ridge above the accuracy of the Gram matrix
ACCURATE = 1e-15  # times n: a multiplier of 1e5 makes 1e-12 of its size too coarse


def bounded_multipliers(
    cosines: Array,
    starts: Array,
    eps: float | None = None,
) -> tuple[Array, float] | None:
    """For each row u of `starts` the z >= 0 that minimises (u + z)ᵀC(u + z), for C nearly singular.

    Where gradients cancel up to rounding, C is zero along some z. The exact minimum then has
    multipliers as large as one over that rounding, and what they bring into d is noise.
    Two proximal steps z ← argmin (u + z)ᵀC(u + z) + ρ‖z − z'‖² from z' = 0 (iterated Tikhonov
    regularisation) bound them by about 2‖Uᵀu‖/√ρ. Each step shortens d, so that it stays no longer
    than Uᵀu. A direction of curvature λ is off by (ρ/(λ + ρ))² only: by rounding, wherever the Gram
    matrix determines it.

    ρ is the largest of 5e-11, ten times the accuracy of C, and ten times the size of its most
    negative eigenvalue.

    Args:
        cosines: C [n, n], with a unit diagonal.
        starts: u, one per row [m, n], of size about one.
        eps: relative accuracy of the entries of C; None is 1e-15.

    Returns:
        z [m, n] and ρ, or None where a problem could not be solved.
    """
    n = len(cosines)
    negative = max(0.0, -float(np.linalg.eigvalsh(cosines)[0]))
    ridge = max(RIDGE, MARGIN * (eps or DEFAULT_EPS), MARGIN * negative)
    matrix = cosines + ridge * np.eye(n)
    found: Array = np.zeros_like(starts)
    for _ in range(2):
        # (C + ρI)(u' + z) is the slope of the step when u' = u − ρ(C + ρI)⁻¹(u + z')
        shifted = starts - ridge * np.linalg.solve(matrix, (starts + found).T).T
        moved = complementary(matrix, shifted, ACCURATE * n)
        if moved is None:
            return None
        found = moved
    return found, ridge

"""Cones that are flat up to rounding: their multipliers, kept in bounds by two steps on a ridge."""

import numpy as np

from gradsurgery.solvers.pivoting import complementary
from gradsurgery.solvers.scaling import DEFAULT_EPS
from gradsurgery.types import Array

RIDGE = 5e-11  # well above float64 rounding, and half of what a gap may be
FLAT = 5e-13  # curvatures well below it are rounding, those above it are determined
STEEP = 10  # how fast the ridge falls above it
STEPS = 2
MARGIN = 10.0  # of the ridge above the accuracy of the Gram matrix
ACCURATE = 1e-15  # times n: a multiplier of 1e5 makes 1e-12 of its size too coarse


def bounded_multipliers(
    cosines: Array,
    starts: Array,
    eps: float | None = None,
) -> tuple[Array, float] | None:
    """For each row u of `starts` the z >= 0 that minimises (u + z)ᵀC(u + z), C nearly singular.

    Where gradients cancel up to rounding, C is zero along some z. The exact minimum then has
    multipliers as large as one over that rounding, and what they bring into d is noise.
    Two proximal steps z ← argmin (u + z)ᵀC(u + z) + (z − z')ᵀP(z − z') from z' = 0 (iterated
    Tikhonov regularisation) bound them. Each step shortens d, so that it stays no longer than Uᵀu.

    P has the eigenvectors of C, so that the ridge ρ(λ) depends on the curvature λ:
    5e-11 · (τ/(λ + τ))¹⁰ with τ = 5e-13. It is at least ten times the accuracy of C or the size of
    its most negative eigenvalue. A direction of curvature λ is off by (ρ/(λ + ρ))² or less. In
    float64 that is 1e-4 at λ = 1e-12, 1e-6 at 1e-11 and 1e-8 at 1e-10; below 1e-13 nearly all.
    Gradients that cancel but for a relative s have λ from about s²/100 to s², and the rounding of C
    alone makes d uncertain by about 1e-14/s². So they are projected as exactly as C allows where
    s >= 1e-5. From there to 1e-6 the projection fades out, so that rounding does not decide.

    Args:
        cosines: C [n, n], with a unit diagonal.
        starts: u, one per row [m, n], of size about one.
        eps: relative accuracy of the entries of C; None is 1e-15.

    Returns:
        z [m, n] and the largest ρ, or None where a problem could not be solved.
    """
    n = len(cosines)
    values, vectors = np.linalg.eigh(cosines)
    least = MARGIN * max(eps or DEFAULT_EPS, -float(values[0]))
    ridges = np.maximum(RIDGE * (FLAT / (FLAT + np.maximum(values, 0.0))) ** STEEP, least)
    penalty = least * np.eye(n) + (vectors * (ridges - least)) @ vectors.T
    matrix = cosines + penalty
    found: Array = np.zeros_like(starts)
    for _ in range(STEPS):
        # (C + P)(u' + z) is the slope of the step when u' = u − (C + P)⁻¹P(u + z')
        shifted = starts - np.linalg.solve(matrix, penalty @ (starts + found).T).T
        moved = complementary(matrix, shifted, ACCURATE * n)
        if moved is None:
            return None
        found = moved
    return found, float(ridges.max())

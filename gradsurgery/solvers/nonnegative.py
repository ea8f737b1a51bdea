"""Non-negative least squares: the one active-set core of the exact solvers."""

import numpy as np

from gradsurgery.types import Array


def nonnegative_least_squares(matrix: Array, target: Array) -> Array | None:
    """Non-negative least squares, or None where the iteration limit comes first.

    argmin ‖Ax − b‖ s.t. x >= 0, by the active-set method of Lawson and Hanson (1974).
    """
    from scipy.optimize import nnls  # importing scipy.optimize costs a quarter of a second

    try:
        solution = nnls(matrix, target, maxiter=30 * matrix.shape[1] + 100)[0]
    except RuntimeError:  # scipy's word for its iteration limit
        return None
    return np.asarray(solution, dtype=np.float64) if np.isfinite(solution).all() else None


def least_distance(root: Array, need: Array) -> Array | None:
    """The shortest vector whose products with some directions reach given bounds, or None.

    z >= 0 of the shortest x = root·z with rootᵀx >= need; None where no x reaches that. Solved as
    non-negative least squares (Lawson & Hanson 1974, chapter 23).

    Args:
        root: [n, n], the constraints' directions are its columns.
        need: what each of them has to reach [n].
    """
    n = len(need)
    if (need <= 0).all():
        return np.zeros(n)
    size = float(np.abs(need).max())
    target = np.zeros(n + 1)
    target[n] = 1.0
    found = nonnegative_least_squares(np.vstack([root, need / size]), target)
    if found is None:
        return None
    slack = 1 - float(need @ found) / size  # 1 / (1 + ‖x/size‖²)
    if slack <= 1e-13:
        return None
    return np.asarray(found * (size / slack))

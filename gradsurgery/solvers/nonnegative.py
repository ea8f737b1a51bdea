"""Non-negative least squares: the one active-set core behind the exact solvers."""

import numpy as np

from gradsurgery.solvers.solution import Array


def nonnegative_least_squares(matrix: Array, target: Array) -> Array | None:
    """argmin ‖Ax − b‖ s.t. x >= 0 by the active-set method of Lawson and Hanson (1974), or None where it gives up."""
    from scipy.optimize import nnls  # importing scipy.optimize costs a quarter of a second

    try:
        solution = nnls(matrix, target, maxiter=30 * matrix.shape[1] + 100)[0]
    except RuntimeError:  # scipy's word for its iteration limit
        return None
    return np.asarray(solution, dtype=np.float64) if np.isfinite(solution).all() else None

"""Many small complementarity problems on one matrix, solved by block principal pivoting."""

import numpy as np
from numpy.typing import NDArray

from gradsurgery.solvers.nonnegative import nonnegative_least_squares
from gradsurgery.solvers.scaling import factor
from gradsurgery.types import Array

ROUNDS = 30
ACCURATE = 1e-12
RIDGE = 1e-14


def complementary(matrix: Array, starts: Array, accurate: float = ACCURATE) -> Array | None:
    """For each row u [n] of `starts` the z >= 0 that minimises (u + z)ᵀC(u + z).

    It is the z >= 0 with y = C(u + z) >= 0 and zᵀy = 0. All problems share the matrix C [n, n],
    positive semi-definite with a unit diagonal, so every round solves the systems of all unfinished
    ones in one call. Coordinates with a negative z leave the support, those with a negative y enter
    (Kostreva 1978; Júdice & Pires 1994). What does not end so, as may happen where C is nearly
    singular, is handed to the active-set method of `nonnegative_least_squares`.

    Args:
        matrix: C.
        starts: u, one per row, [m, n], of size about one.
        accurate: how far below zero y may lie, relative to Σ |uⱼ| + Σ |zⱼ|.

    Returns:
        z [m, n], or None where a problem could not be solved.
    """
    m, n = starts.shape
    base = starts @ matrix
    found = np.zeros((m, n))
    support = base < 0
    left = np.flatnonzero(support.any(1))
    failures = support.sum(1) + n + 1  # the fewest infeasible coordinates so far
    tries = np.full(m, 3)  # rounds without fewer of them before one is flipped at a time
    for _ in range(ROUNDS):
        if not len(left):
            return found
        on = support[left]
        try:
            values = _solve(matrix, on, -base[left])
        except np.linalg.LinAlgError:
            break
        image = base[left] + values @ matrix
        size = np.abs(starts[left]).sum(1) + np.abs(values).sum(1)
        wrong = np.where(on, values < 0, image < -accurate * size[:, None])
        exact = np.abs(np.where(on, image, 0.0)).max(1) <= accurate * size
        count = wrong.sum(1)
        done = (count == 0) & exact & np.isfinite(size)
        found[left[done]] = values[done]
        broken = (count == 0) & ~done  # the system was too ill-conditioned
        better = count < failures[left]
        failures[left] = np.minimum(count, failures[left])
        tries[left] = np.where(better, 3, tries[left] - 1)
        last = n - 1 - np.argmax(wrong[:, ::-1], axis=1)
        single = np.zeros_like(wrong)
        single[np.arange(len(left)), last] = True
        flip = np.where((better | (tries[left] > 0))[:, None], wrong, wrong & single)
        support[left] = on ^ flip
        for i in left[broken].tolist():
            if not _exactly(matrix, starts, found, i):
                return None
        left = left[~done & ~broken]
    for i in left.tolist():
        if not _exactly(matrix, starts, found, i):
            return None
    return found


def _exactly(matrix: Array, starts: Array, found: Array, i: int) -> bool:
    root = factor(matrix)
    solution = nonnegative_least_squares(root, -(root @ starts[i]))
    if solution is None:
        return False
    found[i] = solution
    return True


def _solve(matrix: Array, on: NDArray[np.bool_], right: Array) -> Array:
    """x with C_SS x_S = r_S on the support S of each problem and zero elsewhere."""
    both = on[:, :, None] & on[:, None, :]
    systems = np.where(both, matrix, np.eye(len(matrix)))
    columns = np.where(on, right, 0.0)[:, :, None]
    try:
        found: Array = np.asarray(np.linalg.solve(systems, columns), dtype=np.float64)
    except np.linalg.LinAlgError:  # two gradients of one direction
        found = np.asarray(
            np.linalg.solve(systems + RIDGE * np.eye(len(matrix)), columns), dtype=np.float64
        )
    return np.asarray(found[:, :, 0])

"""Small convex problems on a Gram matrix, in float64 numpy.

Each solver states its optimality gap in a `Solution`.
"""

from gradsurgery.solvers.alpha_fair import alpha_fair
from gradsurgery.solvers.best_worst import best_worst
from gradsurgery.solvers.boxed import boxed_min_norm
from gradsurgery.solvers.dual_cone import project_dual_cone, project_each
from gradsurgery.solvers.frank_wolfe import frank_wolfe
from gradsurgery.solvers.least_correction import least_correction
from gradsurgery.solvers.min_norm import is_stationary, min_norm
from gradsurgery.solvers.nearest_above import nearest_above
from gradsurgery.solvers.orders import meetings
from gradsurgery.solvers.scaling import (
    DEFAULT_EPS,
    as_gram,
    at_rounding_floor,
    equalizing,
    factor,
    least_squares,
    principal_factor,
    split,
)
from gradsurgery.solvers.simplex import project_simplex, softmax
from gradsurgery.solvers.solution import Solution
from gradsurgery.solvers.without_conflict import without_conflict

without_harm = without_conflict  # an earlier name, kept for those who import it

__all__ = [
    "DEFAULT_EPS",
    "Solution",
    "alpha_fair",
    "as_gram",
    "at_rounding_floor",
    "best_worst",
    "boxed_min_norm",
    "equalizing",
    "factor",
    "frank_wolfe",
    "is_stationary",
    "least_correction",
    "least_squares",
    "meetings",
    "min_norm",
    "nearest_above",
    "principal_factor",
    "project_dual_cone",
    "project_each",
    "project_simplex",
    "softmax",
    "split",
    "without_conflict",
]

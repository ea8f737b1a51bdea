"""Convex problems on a Gram matrix. Each returns a `Solution` with its gap."""

from gradsurgery.solvers.best_worst import best_worst
from gradsurgery.solvers.dual_cone import project_dual_cone
from gradsurgery.solvers.frank_wolfe import frank_wolfe
from gradsurgery.solvers.min_norm import is_stationary, min_norm
from gradsurgery.solvers.scaling import DEFAULT_EPS, as_gram, at_rounding_floor, split
from gradsurgery.solvers.solution import Solution

__all__ = [
    "DEFAULT_EPS",
    "Solution",
    "as_gram",
    "at_rounding_floor",
    "best_worst",
    "frank_wolfe",
    "is_stationary",
    "min_norm",
    "project_dual_cone",
    "split",
]

"""Every problem again, stated as in its paper and handed to cvxpy.

Slow, and the measure of the fast solvers.
"""

import warnings
from typing import Any

import numpy as np

from gradsurgery.errors import extra
from gradsurgery.solvers.gaps import cone_gap, hull_gap
from gradsurgery.solvers.least_correction import correction_gap, span
from gradsurgery.solvers.scaling import as_gram, factor, split
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array


def _cvxpy() -> Any:
    with extra("cvxpy", "the reference solver"):
        import cvxpy
    return cvxpy


def _solve(problem: Any) -> tuple[bool, int]:
    cp = _cvxpy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `converged` says that it is inaccurate
            problem.solve(
                solver=cp.CLARABEL,
                tol_gap_abs=1e-12,
                tol_gap_rel=1e-12,
                tol_feas=1e-12,
                max_iter=500,
            )
    except cp.error.SolverError:
        return False, 0
    stats = problem.solver_stats
    return problem.status == cp.OPTIMAL, int(getattr(stats, "num_iters", 0) or 0)


def min_norm(gram: Any) -> Solution:
    """The min-norm point of the convex hull of the gradients.

    argmin wᵀGw s.t. w >= 0, Σw = 1; gap as in `gradsurgery.solvers.min_norm`.
    """
    cp = _cvxpy()
    gram = as_gram(gram)
    cosines, norms = split(gram)
    scale = norms.min() / norms
    point = cp.Variable(len(norms), nonneg=True)  # yᵢ = wᵢ nᵢ, so that the solver sees unit rows
    problem = cp.Problem(cp.Minimize(cp.sum_squares(factor(cosines) @ point)), [scale @ point == 1])
    ok, iterations = _solve(problem)
    if point.value is None:
        return Solution(np.full(len(norms), 1 / len(norms)), np.inf, iterations, False)
    weights = scale * np.maximum(point.value, 0)
    weights = weights / weights.sum()
    return Solution(
        weights, hull_gap(cosines, norms, weights), iterations, ok, float(weights @ gram @ weights)
    )


def project_dual_cone(gram: Any, weights: Any = None) -> Solution:
    """The non-conflicting direction nearest to Jᵀu.

    argmin vᵀGv s.t. v >= u; gap as in `gradsurgery.solvers.project_dual_cone`.
    """
    cp = _cvxpy()
    gram = as_gram(gram)
    cosines, norms = split(gram)
    start = (
        np.full(len(norms), 1 / len(norms))
        if weights is None
        else np.asarray(weights, dtype=np.float64)
    )
    live = norms > 0
    size = float((np.abs(start) * norms).sum()) or 1.0
    scaled = (start * norms / size)[live]
    root = factor(cosines[np.ix_(live, live)])
    point = cp.Variable(int(live.sum()))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(root @ point)), [point >= scaled])
    ok, iterations = _solve(problem)
    if point.value is None:
        return Solution(start, np.inf, iterations, False)
    solved = np.maximum(point.value, scaled)
    value = start.copy()
    value[live] = solved * size / norms[live]
    gap = cone_gap(cosines[np.ix_(live, live)], solved, solved - scaled)
    return Solution(value, gap, iterations, ok, float(value @ gram @ value))


def best_worst(gram: Any, radius: float, weights: Any = None) -> Solution:
    """The direction near the mean gradient whose worst improvement is largest.

    max minᵢ ⟨gᵢ, d⟩ s.t. ‖d − g₀‖ <= c‖g₀‖, with d = Jᵀv and g₀ = Jᵀu, u = 1/n. The gap is the
    solver's own value less what v attains.
    """
    cp = _cvxpy()
    gram = as_gram(gram)
    cosines, norms = split(gram)
    n = len(norms)
    safe = np.where(norms > 0, norms, 1.0)
    live = norms > 0
    share = np.full(n, 1 / n) if weights is None else np.asarray(weights, dtype=np.float64)
    length = float(np.sqrt(max(share @ gram @ share, 0.0))) or 1.0
    mean = norms * share / length
    scale = safe.min() / safe
    masked = cosines * np.outer(live, live)
    root = factor(masked)
    point, level = cp.Variable(n), cp.Variable()
    ball = cp.norm(root @ (point - mean)) <= radius
    ok, iterations = _solve(cp.Problem(cp.Maximize(level), [masked @ point >= level * scale, ball]))
    if point.value is None:
        return Solution(share, np.inf, iterations, False)
    solved: Array = np.where(live, point.value, 0.0)
    attained = float((masked @ solved / scale).min())
    found = np.where(live, solved * length / safe, share)
    unit = length * float(safe.min())
    gap = abs(attained - float(level.value)) / max(float(np.abs(solved).sum()), 1.0)
    return Solution(found, gap, iterations, ok, attained * unit)


def alpha_fair(gram: Any, alpha: float = 1.0, preference: Any = None) -> Solution:
    """The weights of an alpha-fair compromise between the gradients.

    min ½wᵀGw − Σ φ(wᵢ) with φ' = (p/w)^(1/α); gap as in `gradsurgery.solvers.alpha_fair`.
    """
    cp = _cvxpy()
    gram = as_gram(gram)
    cosines, norms = split(gram)
    power = 1 / alpha
    wanted = np.ones(len(norms)) if preference is None else np.asarray(preference)
    logs = (power - 1) * np.log(norms) + power * np.log(wanted)
    shift = float(logs.mean()) / (1 + power)
    targets = np.exp(logs - (1 + power) * shift)
    point = cp.Variable(len(norms), nonneg=True)
    barrier = (
        targets @ cp.log(point)
        if power == 1
        else targets @ cp.power(point, 1 - power) / (1 - power)
    )
    ok, iterations = _solve(
        cp.Problem(cp.Minimize(0.5 * cp.sum_squares(factor(cosines) @ point) - barrier))
    )
    if point.value is None or not (point.value > 0).all():
        return Solution(np.zeros(len(norms)), np.inf, iterations, False)
    x: Array = np.asarray(point.value)
    gap = float(np.abs(cosines @ x - targets * x**-power).max()) / float(x.sum())
    weights = x * np.exp(shift) / norms
    return Solution(weights, gap, iterations, ok, float(weights @ gram @ weights))


def project_each(gram: Any, weights: Any = None) -> Solution:
    """The sum of all gradients, each first projected onto the cone of non-conflicting directions.

    Σᵢ of `project_dual_cone` at uᵢeᵢ, one by one.
    """
    gram = as_gram(gram)
    start = (
        np.full(len(gram), 1 / len(gram))
        if weights is None
        else np.asarray(weights, dtype=np.float64)
    )
    found = [
        project_dual_cone(gram, u * row)
        for u, row in zip(start.tolist(), np.eye(len(gram)), strict=True)
    ]
    value = np.sum([f.value for f in found], axis=0)
    gap, iterations = max(f.gap for f in found), sum(f.iterations for f in found)
    return Solution(
        value, gap, iterations, all(f.converged for f in found), float(value @ gram @ value)
    )


def nearest_above(gram: Any, weights: Any, floors: Any) -> Solution:
    """The direction nearest to Jᵀu that improves each gradient by at least its floor.

    argmin ‖d − Jᵀu‖ s.t. ⟨gᵢ, d⟩ >= bᵢ; `converged` is False where no d reaches them.
    """
    cp = _cvxpy()
    gram = as_gram(gram)
    cosines, norms = split(gram)
    start, floors = np.asarray(weights, dtype=np.float64), np.asarray(floors, dtype=np.float64)
    safe = np.where(norms > 0, norms, 1.0)
    scaled = start * norms
    size = float(np.abs(scaled).sum()) or 1.0
    on = np.flatnonzero((floors > -np.inf) & (norms > 0))
    root = factor(cosines)
    point = cp.Variable(len(norms))
    limits = [(cosines @ point)[i] >= floors[i] / norms[i] / size for i in on.tolist()]
    ok, iterations = _solve(
        cp.Problem(cp.Minimize(cp.sum_squares(root @ (point - scaled / size))), limits)
    )
    if point.value is None or not ok:
        return Solution(start, np.inf, iterations, False)
    value = np.where(norms > 0, point.value * size / safe, start)
    moved = value - start
    return Solution(value, 0.0, iterations, ok, float(moved @ gram @ moved))


def least_correction(products: Any, rises: Any) -> Solution:
    """The multipliers of the least correction of a step after which no objective rises.

    argmin ½λᵀAλ − cᵀλ s.t. λ >= 0, as ½‖Lλ − b‖² with c = Lᵀb; gap as in
    `gradsurgery.solvers.least_correction`.
    """
    cp = _cvxpy()
    products = as_gram(products)
    cosines, norms = split(products)
    live = norms > 0
    scaled = np.asarray(rises, dtype=np.float64)[live] / norms[live]
    size = float(np.abs(scaled).max(initial=0.0)) or 1.0
    root, target = span(cosines[np.ix_(live, live)], scaled / size)
    point = cp.Variable(int(live.sum()), nonneg=True)
    ok, iterations = _solve(cp.Problem(cp.Minimize(cp.sum_squares(root @ point - target))))
    value = np.zeros(len(norms))
    if point.value is None:
        return Solution(value, np.inf, iterations, False)
    found = np.maximum(point.value, 0)
    value[live] = found * size / norms[live]
    gap = correction_gap(cosines[np.ix_(live, live)], scaled / size, found)
    return Solution(value, gap, iterations, ok, float(value @ products @ value))


def boxed_min_norm(gram: Any, lower: Any, upper: Any) -> Solution:
    """The min-norm point of n gradients with each weight between two bounds.

    argmin wᵀGw s.t. a <= w <= b, Σw = 1.
    """
    cp = _cvxpy()
    gram = as_gram(gram)
    cosines, norms = split(gram)
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    point = cp.Variable(len(norms))
    rows = factor(cosines) * (norms / (norms.max() or 1.0))
    limits = [point >= low, point <= high, cp.sum(point) == 1]
    ok, iterations = _solve(cp.Problem(cp.Minimize(cp.sum_squares(rows @ point)), limits))
    if point.value is None:
        return Solution(np.full(len(norms), 1 / len(norms)), np.inf, iterations, False)
    weights = np.minimum(np.maximum(point.value, low), high)
    return Solution(weights, 0.0, iterations, ok, float(weights @ gram @ weights))

"""The min-norm point by Frank-Wolfe: away steps, a correction on the support, a stop by the gap."""

import numpy as np

from gradsurgery.solvers.scaling import split
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

CORRECT_EVERY = 10


def frank_wolfe(gram: Array, tolerance: float = 1e-6, max_iterations: int = 2000) -> Solution:
    """The min-norm point of the convex hull of n gradients, by away-step Frank-Wolfe.

    argmin wᵀGw over the simplex (Lacoste-Julien & Jaggi 2015, Algorithm 1). Three things differ:

    1. The vertices to move to and away from are chosen by the violation relative to each row's
       norm, the quantity by which the result is judged.
    2. Every tenth step moves towards the affine minimiser of the support, up to the first weight
       that vanishes (the corrective step of the paper's section 2). It ends the zigzag of
       ill-conditioned supports.
    3. The stop is the gap itself: `converged` is false where `max_iterations` came first.

    Args:
        gram: G [n, n], symmetric, finite, with a positive diagonal.
        tolerance: the gap maxᵢ (wᵀGw − (Gw)ᵢ) / (nᵢ Σⱼ wⱼnⱼ) at which to stop.
        max_iterations: the bound on iterations.

    Returns:
        `Solution` with the weights [n], the gap as above, and the iterations spent.
    """
    cosines, norms = split(gram)
    # In y = n·w, up to a scale, the hull is {y >= 0, sᵀy = 1} with s = min n / n, and G is C.
    scale = norms.min() / norms
    point = np.zeros(len(norms))
    point[int(np.argmin(norms))] = 1.0
    image = cosines @ point
    gap, iteration = np.inf, 0
    while True:
        value = float(point @ image)
        slack = image - value * scale
        gap = max(0.0, -float(slack.min()) / float(point.sum()))
        if gap <= tolerance or iteration >= max_iterations:
            break
        iteration += 1
        moved = _correct(cosines, scale, point) if iteration % CORRECT_EVERY == 0 else None
        if moved is None or float(moved @ cosines @ moved) > value:
            moved = _step(point, image, slack, scale, value)
        point = moved / float(scale @ moved)
        image = cosines @ point
    weights = scale * point
    weights /= weights.sum()
    return Solution(weights, gap, iteration, gap <= tolerance, float(weights @ gram @ weights))


def _step(point: Array, image: Array, slack: Array, scale: Array, value: float) -> Array:
    """A step towards the most violated vertex, or away from the worst vertex of the support."""
    towards = int(np.argmin(slack))
    support = np.flatnonzero(point > 0)
    away = int(support[np.argmax(slack[support])])
    if -slack[towards] >= slack[away] or len(support) == 1:
        vertex = 1 / scale[towards]
        slope = value - image[towards] * vertex
        curvature = value - 2 * image[towards] * vertex + vertex * vertex
        length = min(1.0, slope / curvature) if curvature > 0 else 1.0
        moved: Array = (1 - length) * point
        moved[towards] += length * vertex
        return moved
    vertex = 1 / scale[away]
    share = point[away] * scale[away]
    slope = image[away] * vertex - value
    curvature = value - 2 * image[away] * vertex + vertex * vertex
    longest = share / (1 - share)
    length = min(longest, slope / curvature) if curvature > 0 else longest
    moved = np.asarray((1 + length) * point)
    moved[away] = 0.0 if length == longest else moved[away] - length * vertex
    return moved


def _correct(cosines: Array, scale: Array, point: Array) -> Array | None:
    """Towards the affine minimiser of the support, up to the first coordinate that reaches zero."""
    on = np.flatnonzero(point > 0)
    k = len(on)
    if k < 2:
        return None
    system = np.zeros((k + 1, k + 1))
    system[:k, :k] = cosines[np.ix_(on, on)]
    system[:k, k] = system[k, :k] = -scale[on]
    right = np.zeros(k + 1)
    right[k] = -1.0
    try:
        target = np.linalg.solve(system, right)[:k]
    except np.linalg.LinAlgError:
        target = np.linalg.lstsq(system, right, rcond=None)[0][:k]
    if not np.isfinite(target).all():
        return None
    change = target - point[on]
    reach = np.where(change < 0, point[on] / np.where(change < 0, -change, 1.0), np.inf)
    first = int(np.argmin(reach))
    moved = np.zeros_like(point)
    moved[on] = np.maximum(point[on] + min(1.0, reach[first]) * change, 0.0)
    if reach[first] <= 1.0:
        moved[on[first]] = 0.0
    return moved if float(scale @ moved) > 0 else None

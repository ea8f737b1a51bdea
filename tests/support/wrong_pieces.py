"""Pieces of solvers that are subtly wrong, as found in published code, and right ones."""

import math

import numpy as np

import gradsurgery as gs
from gradsurgery.solvers import best_worst, min_norm, project_dual_cone


def clamped(weights, low=0.001, high=0.999):
    return np.clip(weights, low, high)


def plain_frank_wolfe(gram, steps=100):
    """The textbook iteration with exact line search, no away steps, no gap."""
    weights = np.full(len(gram), 1 / len(gram))
    for _ in range(steps):
        image = gram @ weights
        vertex = int(image.argmin())
        direction = np.eye(len(gram))[vertex] - weights
        curvature = direction @ gram @ direction
        if curvature <= 0:
            break
        weights = weights + np.clip(-(direction @ image) / curvature, 0, 1) * direction
    return weights


def trace_epsilon(gram, epsilon=1e-4):
    """Below this trace the matrix counts as zero; above, it is divided by the trace."""
    trace = float(np.trace(gram))
    return np.zeros_like(gram) if trace < epsilon else gram / trace


def cone_by_steps(gram, start, steps=100):
    """The dual of the projection onto the cone, by 100 Frank-Wolfe steps on a box that holds its
    solution.
    """
    extra = np.zeros(len(gram))
    box = 10.0 * np.abs(start).sum()
    for _ in range(steps):
        image = gram @ (start + extra)
        direction = np.zeros(len(gram)) - extra
        vertex = int(image.argmin())
        if image[vertex] < 0:
            direction[vertex] += box
        curvature = direction @ gram @ direction
        if curvature <= 0:
            break
        extra = extra + np.clip(-(direction @ image) / curvature, 0, 1) * direction
    return start + extra


def worst_by_weights(gram, weights, radius):
    """CAGrad's direction from given weights on the simplex."""
    mean = np.full(len(gram), 1 / len(gram))
    length, own = (math.sqrt(max(w @ gram @ w, 0.0)) for w in (mean, weights))
    return mean + radius * length / own * weights if own > 0 else mean


def worst_by_steps(gram, radius, steps=100):
    """100 plain Frank-Wolfe steps on ⟨g_w, g₀⟩ + c‖g₀‖‖g_w‖."""
    mean = np.full(len(gram), 1 / len(gram))
    length, weights = math.sqrt(max(mean @ gram @ mean, 0.0)), mean.copy()
    for k in range(steps):
        own = math.sqrt(max(weights @ gram @ weights, 1e-300))
        slope = gram @ mean + radius * length * (gram @ weights) / own
        weights = weights + 2 / (k + 2) * (np.eye(len(gram))[int(slope.argmin())] - weights)
    return worst_by_weights(gram, weights, radius)


def hull_weights(gram):
    return min_norm(gram).value


def cone_by_definition(gram):
    """argmin vᵀGv s.t. v >= 1/n, as it is written: rounding decides where gradients cancel."""
    from scipy.optimize import nnls

    norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    root = gs.solvers.factor(gram / norms / norms[:, None])
    start = norms / len(norms)
    return (start + nnls(root, -root @ start, maxiter=10_000)[0]) / norms


def cone_weights(gram, start=None):
    return project_dual_cone(
        gram, np.full(len(gram), 1 / len(gram)) if start is None else start
    ).value


def simplex_part(gram, radius):
    """The weights on the simplex behind CAGrad's answer."""
    extra = np.maximum(best_worst(gram, radius).value - 1 / len(gram), 0.0)
    return extra / extra.sum() if extra.sum() > 0 else np.full(len(gram), 1 / len(gram))

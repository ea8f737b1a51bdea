"""Onto the probability simplex: by Euclidean projection, or by softmax."""

import numpy as np

from gradsurgery.types import Array


def project_simplex(point: Array) -> Array:
    """The point of the probability simplex nearest to p.

    argmin ‖w − p‖ s.t. w >= 0, Σw = 1, exactly, by sorting (Held, Wolfe & Crowder 1974).

    Args:
        point: p [n].

    Example:
        >>> import numpy as np
        >>> from gradsurgery.solvers import project_simplex
        >>> project_simplex(np.array([0.5, 1.0])).tolist()
        [0.25, 0.75]
    """
    point = point - point.max()  # changes nothing but the accuracy, where the point is far away
    ordered = np.sort(point)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(point) + 1)
    return np.asarray(np.maximum(point - excess[np.flatnonzero(ordered > excess)[-1]], 0.0))


def softmax(values: Array) -> Array:
    """The softmax of n numbers, without overflow.

    wᵢ = exp(xᵢ) / Σ exp(xⱼ).

    Args:
        values: x [n].

    Example:
        >>> import numpy as np
        >>> from gradsurgery.solvers import softmax
        >>> softmax(np.array([1000.0, 1000.0])).tolist()
        [0.5, 0.5]
    """
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())

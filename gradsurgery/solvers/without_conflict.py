"""A direction without its conflict with one gradient."""

import numpy as np

from gradsurgery.types import Array


def without_conflict(weights: Array, grams: Array, index: int) -> Array:
    """The weights of the nearest direction to d = Jᵀw that does not conflict with one gradient g.

    That direction is d − min(0, ⟨g, d⟩)/‖g‖² · g (Chaudhry et al. 2019, equation 11).

    Args:
        weights: w [n], or [k, n] with one row per parameter tensor.
        grams: G [n, n], or block_grams [k, n, n] for weights [k, n].
        index: which gradient g is.

    Returns:
        The weights, in the shape given; the very array where d does not conflict with g.

    Example:
        >>> import numpy as np
        >>> from gradsurgery.solvers import without_conflict
        >>> without_conflict(np.array([0.0, 1.0]), np.array([[1.0, -2.0], [-2.0, 9.0]]), 0).tolist()
        [2.0, 1.0]
    """
    blocks = grams if grams.ndim == 3 else grams[None]
    square = float(blocks[:, index, index].sum())
    along = float(np.einsum("kn,kn->", np.atleast_2d(weights), blocks[:, index]))
    if along >= 0 or square == 0:
        return weights
    changed = weights.copy()
    changed[..., index] -= along / square
    return changed

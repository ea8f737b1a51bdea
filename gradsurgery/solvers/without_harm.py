"""A direction without its harm to one gradient."""

import numpy as np

from gradsurgery.solvers.solution import Array


def without_harm(weights: Array, grams: Array, index: int) -> Array:
    """The weights of d − min(0, ⟨g, d⟩)/‖g‖² · g: the nearest direction to d that does not hurt g (Chaudhry et al. 2019, equation 11).

    Args:
        weights: w [n], or [k, n] with one row a parameter tensor.
        grams: G [n, n], or block_grams [k, n, n] for weights [k, n].
        index: which gradient g is.

    Example:
        >>> import numpy as np
        >>> from gradsurgery.solvers import without_harm
        >>> without_harm(np.array([0.0, 1.0]), np.array([[1.0, -2.0], [-2.0, 9.0]]), 0).tolist()
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

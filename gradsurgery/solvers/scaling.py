"""A Gram matrix taken apart into cosines and norms, and the floor below which all is rounding."""

import math
from typing import Any

import numpy as np

from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.types import Array

DEFAULT_EPS = 1e-15
SINGLE_EPS = 1e-6
WELL_CONDITIONED = 1e-3  # of the diagonal of a Cholesky factor of cosines


def as_gram(gram: Any) -> Array:
    """A Gram matrix, checked, as a symmetric float64 array [n, n]: the one given, if it is one.

    Raises:
        InputError: when it is not square, not symmetric, or has a negative diagonal.
        NonFiniteError: when it holds a NaN or an infinity.
    """
    array = np.asarray(gram, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        raise InputError(
            f"a Gram matrix is square, [n, n] with n >= 1; got shape {list(array.shape)}."
        )
    if math.isfinite(array.sum()) and (array == array.T).all() and array.diagonal().min() >= 0:
        return array
    if not np.isfinite(array).all():
        bad = sorted({int(i) for i in np.argwhere(~np.isfinite(array))[:, 0]})
        raise NonFiniteError(
            f"the Gram matrix has NaN or inf in rows {bad}: "
            "a gradient there is not finite, or its square overflows."
        )
    diagonal = np.diagonal(array)
    if (diagonal < 0).any():
        raise InputError(
            f"a Gram matrix has a non-negative diagonal (squared norms); got {diagonal.min():.3g}."
        )
    norms = np.sqrt(diagonal)
    if (abs(array - array.T) > 1e-4 * np.outer(norms, norms)).any():
        raise InputError("a Gram matrix is symmetric; the one given is not.")
    return 0.5 * (array + array.T)


def as_positive(what: str, values: Any, n: int) -> Array:
    """Numbers above zero, one per gradient [n], checked.

    Raises:
        InputError: that says what was given.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (n,) or not (np.isfinite(found) & (found > 0)).all():
        raise InputError(f"{what}: expected {n} finite numbers above 0; got {np.asarray(values)}.")
    return found


def accuracy(gram: Any, eps: float | None = None) -> float:
    """The relative accuracy of a Gram's entries: as given, else 1e-6 in float32, else 1e-15."""
    if eps is not None:
        return eps
    return SINGLE_EPS if str(getattr(gram, "dtype", "")).endswith("float32") else DEFAULT_EPS


def split(gram: Array) -> tuple[Array, Array]:
    """The cosines [n, n] and the norms [n] of gradients, from their Gram matrix.

    A gradient of zero has cosine 0 with every other one, and 1 with itself.
    """
    norms = np.sqrt(np.diagonal(gram))
    safe = np.where(norms > 0, norms, 1.0)
    cosines = np.minimum(np.maximum(gram / safe / safe[:, None], -1.0), 1.0)
    np.fill_diagonal(cosines, 1.0)
    return cosines, norms


def factor(cosines: Array) -> Array:
    """A factor L of a matrix of cosines.

    L [n, n] with LᵀL = C: Cholesky's where C is well-conditioned, else by eigenvalues, negative
    ones taken for zero.
    """
    upper = well_conditioned(cosines)
    return principal_factor(cosines) if upper is None else upper


def well_conditioned(cosines: Array, eps: float | None = None) -> Array | None:
    """Cholesky's factor L of a matrix of cosines; None where its diagonal comes near rounding.

    L [n, n] is upper triangular, with LᵀL = C.

    Args:
        cosines: C [n, n].
        eps: relative accuracy of its entries; None is 1e-15.
    """
    try:
        upper: Array = np.asarray(np.linalg.cholesky(cosines).T, dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    least = WELL_CONDITIONED if eps is None else max(WELL_CONDITIONED, 100 * math.sqrt(eps))
    return upper if upper.diagonal().min(initial=1.0) > least else None


def principal_factor(cosines: Array) -> Array:
    """A factor L of a matrix of cosines whose rows are the principal components.

    L [n, n] with LᵀL = C, the shortest component first.
    """
    values, vectors = np.linalg.eigh(cosines)
    root: Array = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return root


def least_squares(cosines: Array, target: Array, eps: float | None = None) -> Array:
    """The least-squares solution of Cx = b for a matrix of cosines.

    x = C⁺b, with eigenvalues below rounding (`eps`) taken for zero.
    """
    if well_conditioned(cosines, eps) is not None:
        return np.asarray(np.linalg.solve(cosines, target))
    return _pseudo_inverse(cosines, target, eps)


def _pseudo_inverse(cosines: Array, target: Array, eps: float | None) -> Array:
    values, vectors = np.linalg.eigh(cosines)
    kept = values > len(cosines) * 10 * (eps or DEFAULT_EPS) * values[-1]
    return np.asarray(vectors[:, kept] @ ((vectors[:, kept].T @ target) / values[kept]))


def equalizing(cosines: Array, wanted: Array, eps: float | None = None) -> Array:
    """The combination of unit gradients whose products with them are nearest to b.

    x = C⁺b. Zero where the unit gradients, weighted by b, sum to zero up to rounding. C⁺b is zero
    there, and what is computed for it is rounding, of which a normalisation would make a direction.
    """
    if well_conditioned(cosines, eps) is not None:  # no combination of them vanishes
        return np.asarray(np.linalg.solve(cosines, wanted))
    if at_rounding_floor(cosines, wanted, eps):
        return np.zeros_like(wanted)
    found = _pseudo_inverse(cosines, wanted, eps)
    image = cosines @ found  # of b, the part in their span
    floor = 10 * (eps or DEFAULT_EPS) * len(wanted) * float(wanted @ wanted)
    return found if float(image @ image) > floor else np.zeros_like(wanted)


def at_rounding_floor(gram: Array, weights: Array, eps: float | None = None) -> bool:
    """Whether a combination of gradients is nothing but rounding noise.

    It is where ‖Jᵀw‖² <= 10·eps·(Σ |wⱼ| nⱼ)².
    """
    size = float(np.abs(weights) @ np.sqrt(np.diagonal(gram)))
    return float(weights @ gram @ weights) <= 10 * (eps or DEFAULT_EPS) * size * size

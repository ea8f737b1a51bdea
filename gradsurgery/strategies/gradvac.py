"""gradvac: gradients pulled together until their cosines reach a moving target."""

from typing import Annotated

import numpy as np

from gradsurgery.registry import SHARE, State, homogeneous, strategy, when
from gradsurgery.solvers import split
from gradsurgery.solvers.solution import Array

FLOOR = 1e-12  # of 1 − ρ̂²: a target of 1 asks for a multiple without bound


@strategy(
    "gradvac",
    paper="Wang et al. 2021, arXiv:2010.05874",
    scale="sum",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        when("n <= 2", lambda n: n <= 2, "non-conflicting", "strict", "deterministic"),
    ),
)
def gradvac(gram: Array, state: State, rng: np.random.Generator, *, beta: Annotated[float, SHARE] = 0.01) -> Array:
    """d = Σᵢ g̃ᵢ; for each i over the other j in random order, where ρ = cos(g̃ᵢ, gⱼ) is below the target ρ̂ᵢⱼ:

    g̃ᵢ ← g̃ᵢ + ‖g̃ᵢ‖ (ρ̂√(1 − ρ²) − ρ√(1 − ρ̂²)) / (nⱼ√(1 − ρ̂²)) · gⱼ, which brings the cosine to ρ̂ (equation 4), and always
    ρ̂ᵢⱼ ← (1 − β)ρ̂ᵢⱼ + βρ (equation 5), from 0. Algorithm 1, with ρ and the length of the current g̃ᵢ. With targets of 0, as
    in the first step, it is `pcgrad`; nothing is guaranteed later. Permutation equivariance holds in distribution.

    Args:
        beta: β, how fast the targets follow the cosines.

    Example:
        >>> import gradsurgery as gs
        >>> gradvac, state = gs.get_strategy("gradvac"), gs.State()
        >>> gradvac.weights([[1.0, -0.5], [-0.5, 1.0]], state=state).tolist()
        [1.5, 1.5]
    """
    n = len(gram)
    cosines, norms = split(gram)
    target = state.pairs("target", 0.0)
    each = np.arange(n)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], dtype=np.intp).reshape(n, n - 1)
    order = rng.permuted(others, axis=1).T
    wanted = target[each, order]  # [n − 1, n]; each pair is met once, so that all of this is known before
    slant = wanted / np.sqrt(np.maximum(1 - wanted**2, FLOOR))
    along, square = np.zeros(order.shape), np.zeros(order.shape)
    coefficients = np.diag(norms)  # row i holds g̃ᵢ as coefficients of the unit rows
    for k, j in enumerate(order):
        along[k] = np.einsum("ij,ij->i", coefficients, cosines[j])
        square[k] = np.einsum("ij,ij->i", coefficients @ cosines, coefficients)
        pull = slant[k] * np.sqrt(np.maximum(square[k] - along[k] ** 2, 0.0)) - along[k]  # > 0 where ρ < ρ̂
        coefficients[each, j] += np.where(norms[j] > 0, np.maximum(pull, 0.0), 0.0)
    length = np.sqrt(np.maximum(square, 0.0))
    rho = np.where(norms[order] > 0, np.clip(np.divide(along, length, out=np.zeros(order.shape), where=length > 0), -1.0, 1.0), 0.0)
    target[each, order] = (1 - beta) * wanted + beta * rho
    return np.asarray(np.divide(coefficients.sum(0), norms, out=np.ones(n), where=norms > 0))

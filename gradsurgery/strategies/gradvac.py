"""gradvac: gradient vaccine."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import SHARE, About, Citation, State, homogeneous, strategy, when
from gradsurgery.solvers import meetings, split
from gradsurgery.types import Array

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
    also=("gradient vaccine",),
    about=About(
        family="projections",
        use=(
            "Gradients of related tasks should become more alike than the absence of conflict "
            "asks for."
        ),
        avoid="A guarantee is needed after the first step.",
        maths=(
            r"\tilde g_i \gets \tilde g_i + \lVert\tilde g_i\rVert\, \frac{\hat\rho \sqrt{1 - "
            r"\rho^2} - \rho \sqrt{1 - \hat\rho^2}}{\lVert g_j\rVert \sqrt{1 - \hat\rho^2}}\, g_j "
            r"\quad\text{where } \rho < \hat\rho_{ij}"
        ),
        papers=(
            Citation(
                title=(
                    "Gradient Vaccine: Investigating and Improving Multi-task Optimization in "
                    "Massively Multilingual Models"
                ),
                authors=("Zirui Wang", "Yulia Tsvetkov", "Orhan Firat", "Yuan Cao"),
                year=2021,
                venue="ICLR",
                arxiv="2010.05874",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
    ),
)
def gradvac(
    gram: Array, state: State, rng: np.random.Generator, *, beta: Annotated[float, SHARE] = 0.01
) -> Array:
    """Each gradient is turned towards the others until their cosines reach a running target.

    d = Σᵢ g̃ᵢ. For each i over the other j in random order, where ρ = cos(g̃ᵢ, gⱼ) is below the
    target ρ̂ᵢⱼ: g̃ᵢ ← g̃ᵢ + ‖g̃ᵢ‖ (ρ̂√(1 − ρ²) − ρ√(1 − ρ̂²)) / (nⱼ√(1 − ρ̂²)) · gⱼ, which brings
    the cosine to ρ̂ (equation 4). Always ρ̂ᵢⱼ ← (1 − β)ρ̂ᵢⱼ + βρ (equation 5), from 0.

    Algorithm 1, with ρ and the length of the current g̃ᵢ. With targets of 0, as in the first step,
    it is `pcgrad`; nothing is guaranteed later. Permutation equivariance holds in distribution.

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
    order = meetings(n, rng)
    wanted = target[each, order]  # [n − 1, n]: no pair comes twice, so that none changes in between
    slant = wanted / np.sqrt(np.maximum(1 - wanted * wanted, FLOOR))
    real = (norms > 0)[order]
    slant[~real] = 0.0
    image = cosines * norms[:, None]  # row i holds ⟨g̃ᵢ, unit row j⟩
    square = norms * norms  # and this ‖g̃ᵢ‖²
    along, squares, pulls = [], [], []
    for slope, others, place in zip(slant, order, order + n * each, strict=True):
        here = image.take(place)
        across = np.sqrt(np.maximum(square - here * here, 0.0))
        pull = np.maximum(slope * across - here, 0.0)  # > 0 where ρ < ρ̂
        along.append(here)
        squares.append(square)
        pulls.append(pull)
        image += pull[:, None] * cosines[others]
        square = square + pull * (pull + here + here)
    length = np.sqrt(np.maximum(squares, 0.0)).reshape(order.shape)
    rho = np.divide(
        np.reshape(along, order.shape), length, out=np.zeros(order.shape), where=real & (length > 0)
    )
    target[each, order] = (1 - beta) * wanted + beta * np.minimum(np.maximum(rho, -1.0), 1.0)
    # of the unit rows, in the sum of all g̃ᵢ
    coefficients = norms + np.bincount(order.ravel(), np.ravel(pulls), n)
    return np.asarray(np.divide(coefficients, norms, out=np.ones(n), where=norms > 0))

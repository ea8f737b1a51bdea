"""pcgrad: projecting conflicting gradients."""

from typing import Literal

import numpy as np

from gradsurgery.contract import About, Citation, homogeneous, strategy, when
from gradsurgery.solvers import meetings, split
from gradsurgery.types import Array


@strategy(
    "pcgrad",
    paper="Yu et al. 2020, arXiv:2001.06782",
    scale="sum",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        when("n <= 2", lambda n: n <= 2, "non-conflicting", "strict", "deterministic"),
    ),
    variants=({"reduction": "mean"},),
    also=("gradient surgery", "projecting conflicting gradients"),
    about=About(
        family="projections",
        use=(
            "Two objectives conflict now and then: without conflict it is the sum, and with two "
            "it is non-conflicting."
        ),
        avoid=(
            "There are many objectives and a guarantee is needed: conflict may remain. `upgrad` "
            "and `dualproj` leave none."
        ),
        maths=(
            r"d = \sum_i \tilde g_i, \qquad \tilde g_i \gets \tilde g_i - \frac{\langle\tilde "
            r"g_i, g_j\rangle}{\lVert g_j\rVert^2}\, g_j \quad\text{where } \langle\tilde g_i, "
            r"g_j\rangle < 0"
        ),
        papers=(
            Citation(
                title="Gradient Surgery for Multi-Task Learning",
                authors=(
                    "Tianhe Yu",
                    "Saurabh Kumar",
                    "Abhishek Gupta",
                    "Sergey Levine",
                    "Karol Hausman",
                    "Chelsea Finn",
                ),
                year=2020,
                venue="NeurIPS",
                arxiv="2001.06782",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "Published code has been seen to use one order for all i, or none, to project a "
                "gradient off itself, and to count heads in the norms."
            ),
        ),
    ),
)
def pcgrad(
    gram: Array, rng: np.random.Generator, *, reduction: Literal["sum", "mean"] = "sum"
) -> Array:
    """Each gradient is projected, in random order, off the gradients it conflicts with.

    d = Σᵢ g̃ᵢ with, for each i over the other j in random order: if ⟨g̃ᵢ, gⱼ⟩ < 0, g̃ᵢ ← g̃ᵢ −
    (⟨g̃ᵢ, gⱼ⟩/nⱼ²) gⱼ.

    Algorithm 1 of the paper, with an order of its own for each i, on the Gram matrix alone: g̃ᵢ is
    kept as coefficients of the rows. For two objectives d is non-conflicting; for more that is not
    guaranteed. Permutation equivariance holds in distribution.

    Args:
        reduction: "sum" (the paper) or "mean" of the projected gradients.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("pcgrad").weights([[1.0, -0.5], [-0.5, 1.0]]).tolist()
        [1.5, 1.5]
    """
    n = len(gram)
    cosines, norms = split(gram)
    each = np.arange(n)
    order = meetings(n, rng)
    # Row i holds g̃ᵢ as coefficients of the unit rows; step k projects every g̃ᵢ off its own k-th
    # other at once.
    coefficients = np.diag(norms)
    for j in order:
        along = np.einsum("ij,ij->i", coefficients, cosines[j])
        coefficients[each, j] -= np.where((along < 0) & (norms[j] > 0), along, 0.0)
    weights: Array = np.divide(coefficients.sum(0), norms, out=np.ones(n), where=norms > 0)
    return weights / n if reduction == "mean" else weights

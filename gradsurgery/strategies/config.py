"""config: conflict-free inverse gradients."""

from typing import Any

import numpy as np

from gradsurgery.contract import About, Citation, by_objective, homogeneous, strategy, when
from gradsurgery.solvers import equalizing, split
from gradsurgery.types import Array


def _full_rank(n: int, rank: int) -> bool:
    return n == rank


@strategy(
    "config",
    paper="Liu et al. 2024, arXiv:2408.11104",
    scale="sum",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        when(
            "the gradients are linearly independent",
            _full_rank,
            "non-conflicting",
            "strict",
            "scale-invariant",
        ),
    ),
    also=("conflict-free inverse gradients",),
    about=About(
        family="equal improvement",
        use=(
            "Losses differ in size, as in PINNs, and each should improve at the same rate "
            "relative to its gradient."
        ),
        avoid=(
            "There are more objectives than can point the same way: where unit gradients sum to "
            "zero d is zero."
        ),
        maths=(
            r"d = \left(\sum_i \langle g_i, \hat x\rangle\right) \hat x, \qquad x = U^+ \mathbf "
            r"1, \quad u_i = \frac{g_i}{\lVert g_i\rVert}"
        ),
        papers=(
            Citation(
                title="ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks",
                authors=("Qiang Liu", "Mengyu Chu", "Nils Thuerey"),
                year=2024,
                venue="ICLR",
                arxiv="2408.11104",
                source="README of github.com/tum-pbs/ConFIG",
            ),
        ),
        related={
            "DCGD": (
                "for two losses its default variant, Center, is config; its variant Projection is "
                "dualproj times 2 (arXiv:2409.18426)."
            ),
            "M-ConFIG": (
                "it takes the gradient of one loss per step and running means of the others, "
                "which is not in this library."
            ),
        },
    ),
)
def config(
    gram: Array,
    objectives: tuple[str, ...],
    eps: float | None = None,
    *,
    preference: Any = None,
) -> Array:
    """The direction of equal cosines with all gradients, as long as their projections onto it.

    d = (Σᵢ ⟨gᵢ, x̂⟩) x̂ with x̂ the direction of x = U⁺1, U the unit rows (equations 2 and 3).

    All on the matrix of cosines C: x = UᵀC⁺1, so that no [n, d] pseudo-inverse is formed. With
    linearly independent gradients every cosine with d is the same and positive. A zero gradient is
    left out.

    d is zero where the unit gradients sum to zero up to rounding (two against two, three at 120°):
    no direction has equal positive cosines with all of them.

    Args:
        preference: in place of 1: the cosines' ratio; a dict from name to number, or numbers in
            the order of the losses when those are a sequence.

    Raises:
        InputError: when an objective has no number, or one is not finite.

    Example:
        >>> from gradsurgery import get_strategy
        >>> config = get_strategy("config")
        >>> config.weights([[1.0, 0.0], [0.0, 4.0]]).round(9).tolist()
        [1.5, 0.75]
    """
    cosines, norms = split(gram)
    wanted = (
        np.ones(len(norms))
        if preference is None
        else by_objective("preference", preference, objectives)
    )
    live = np.flatnonzero(norms > 0)
    weights = np.zeros(len(norms))
    if not len(live):
        return weights
    block = cosines[np.ix_(live, live)]
    along = equalizing(block, wanted[live], eps)
    image = block @ along
    square = float(along @ image)
    if square > 0:
        weights[live] = float(norms[live] @ image) / square * along / norms[live]
    return weights

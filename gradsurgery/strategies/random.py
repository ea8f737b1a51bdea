"""random: random loss weighting (RLW)."""

import numpy as np

from gradsurgery.contract import About, Citation, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "random",
    paper="Lin et al. 2022, arXiv:2111.10603",
    scale="convex",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "sums-to-one"),
    also=("RLW", "random loss weighting", "random weighting"),
    about=About(
        family="baselines",
        use="As a baseline: a method of weighting has to beat it.",
        avoid="Runs have to repeat without a seed.",
        maths=r"w = \mathrm{softmax}(z), \qquad z \sim \mathcal N(0, I)",
        papers=(
            Citation(
                title=(
                    "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task "
                    "Learning"
                ),
                authors=("Baijiong Lin", "Feiyang Ye", "Yu Zhang", "Ivor W. Tsang"),
                year=2022,
                venue="TMLR",
                arxiv="2111.10603",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
                journal=True,
            ),
        ),
    ),
)
def random(objectives: tuple[str, ...], rng: np.random.Generator) -> Array:
    """Random weights that sum to one, drawn at every step: a baseline that is hard to beat.

    w = softmax(z), z ~ N(0, I) (section 3.1 of the paper).

    The numbers follow from (seed, step): `Surgery(..., seed=)` or `step=` of a call. Permutation
    equivariance holds in distribution.

    Example:
        >>> from gradsurgery import get_strategy
        >>> weights = get_strategy("random").weights([[1.0, 0.0], [0.0, 4.0]])
        >>> float(weights.sum().round(12))
        1.0
    """
    draw = np.exp(rng.standard_normal(len(objectives)))
    weights: Array = draw / draw.sum()
    return weights

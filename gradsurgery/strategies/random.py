"""random: random loss weighting (RLW)."""

import numpy as np

from gradsurgery.contract import homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "random",
    paper="Lin et al. 2022, arXiv:2111.10603",
    scale="convex",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "sums-to-one"),
    also=("RLW", "random loss weighting"),
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

"""mean: equal weights that sum to one."""

import numpy as np

from gradsurgery.contract import About, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "mean",
    paper="the usual mean of losses",
    scale="mean",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic", "sums-to-one"),
    also=("average", "avg"),
    about=About(
        family="baselines",
        use="The plain baseline whose step does not grow with the number of losses.",
        avoid="Losses come and go: the weight of each then changes with their number.",
        maths=r"d = \frac1n \sum_i g_i",
    ),
)
def mean(objectives: tuple[str, ...]) -> Array:
    """The mean of the gradients.

    d = (1/n) Σᵢ gᵢ, with n the number of losses in this step.

    Exactly the gradient of `torch.stack(losses).mean().backward()`, heads included, in one
    backward pass.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("mean").weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [0.5, 0.5]
    """
    return np.full(len(objectives), 1 / len(objectives))

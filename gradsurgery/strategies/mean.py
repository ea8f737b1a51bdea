"""mean: equal weights that sum to one."""

import numpy as np

from gradsurgery.contract import homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "mean",
    paper="the usual mean of losses",
    scale="mean",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic", "sums-to-one"),
    also=("average", "avg"),
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

"""sum: the baseline of every comparison."""

import numpy as np

from gradsurgery.contract import homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "sum",
    paper="the usual sum of losses",
    scale="sum",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("EW", "equal weighting", "LS", "linear scalarization", "uniform", "vanilla"),
)
def sum_(objectives: tuple[str, ...]) -> Array:
    """The sum of the gradients, as `loss.backward()` of the summed losses gives it.

    d = Σᵢ gᵢ: w = 1 for each of the n objectives.

    Exactly the gradient of `sum(losses).backward()`, in one backward pass.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("sum").weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [1.0, 1.0]
    """
    return np.ones(len(objectives))

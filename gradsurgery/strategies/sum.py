"""sum: the baseline of every comparison."""

import numpy as np

from gradsurgery.contract import About, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "sum",
    paper="the usual sum of losses",
    scale="sum",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=(
        "EW",
        "equal weighting",
        "equal weights",
        "baseline",
        "LS",
        "linear scalarization",
        "uniform",
        "vanilla",
        "linear scalarisation",
        "unitary scalarization",
    ),
    about=About(
        family="baselines",
        use="First of all, with a tuned learning rate: most strategies gain little over it.",
        avoid="Losses differ by orders of magnitude, or one of them must not rise.",
        maths=r"d = \sum_i g_i",
    ),
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

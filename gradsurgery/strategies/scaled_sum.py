"""scaled-sum: a longer step on shared parameters."""

import numpy as np

from gradsurgery.contract import About, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "scaled-sum",
    paper="baseline: the sum with a larger step on shared parameters",
    scale="sum",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    about=About(
        family="baselines",
        use="As a baseline for methods that lengthen the step on shared parameters.",
        avoid="In place of a learning rate: it is one for shared parameters.",
        maths=r"d = \gamma \sum_i g_i",
    ),
)
def scaled_sum(objectives: tuple[str, ...], *, gamma: float = 1.5) -> Array:
    """The sum times a factor on shared parameters: a baseline for methods that lengthen the step.

    d = γ Σᵢ gᵢ on groups that several objectives reach; the plain gradient elsewhere.

    Methods that lengthen the step on shared parameters have to beat this baseline, not only `sum`:
    MMPareto multiplies it by γ = 1.5 even without conflict.

    Args:
        gamma: γ.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("scaled-sum").weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [1.5, 1.5]
    """
    return np.full(len(objectives), float(gamma))

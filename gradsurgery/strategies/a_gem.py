"""a-gem: averaged gradient episodic memory."""

import numpy as np

from gradsurgery.contract import ObjectiveName, homogeneous, strategy, when
from gradsurgery.solvers import without_conflict
from gradsurgery.types import Array


@strategy(
    "a-gem",
    paper="Chaudhry et al. 2019, arXiv:1812.00420",
    scale="sum",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        when("n <= 2", lambda n: n <= 2, "non-conflicting"),
    ),
    variants=({"objective": "0"},),
)
def a_gem(gram: Array, objectives: tuple[str, ...], *, objective: ObjectiveName) -> Array:
    """The sum of the other gradients, projected so that it does not conflict with the named one.

    d = g − min(0, ⟨g, r⟩)/‖r‖² · r, with r the gradient of the named objective and g the sum of
    all others (equation 11).

    In continual learning r is the gradient of the loss on the memory. d never conflicts with it,
    and does not follow it either. On a group that it does not reach d is the sum.
    `Surgery(protect=NAME)` does the same over any other strategy, with r among the gradients.

    Args:
        objective: the name of the objective that d does not conflict with.

    Example:
        >>> from gradsurgery import get_strategy
        >>> a_gem = get_strategy("a-gem", objective="0")
        >>> a_gem.weights([[1.0, -2.0], [-2.0, 9.0]]).tolist()
        [2.0, 1.0]
    """
    weights = np.array([0.0 if name == objective else 1.0 for name in objectives])
    return (
        without_conflict(weights, gram, objectives.index(objective))
        if objective in objectives
        else weights
    )

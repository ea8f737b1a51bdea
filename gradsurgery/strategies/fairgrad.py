"""fairgrad: fair resource allocation."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import NON_NEGATIVE, homogeneous, strategy, when
from gradsurgery.solvers import Solution, alpha_fair
from gradsurgery.types import Array


@strategy(
    "fairgrad",
    paper="Ban & Ji 2024, arXiv:2402.15638",
    scale="own",
    claims=(
        "permutation-equivariant",
        "deterministic",
        when("alpha > 0", lambda options: options["alpha"] > 0, "non-conflicting", "strict"),
        homogeneous(
            lambda options: (1 - options["alpha"]) / (1 + options["alpha"]), "(1 − α)/(1 + α)"
        ),
        when("alpha = 1", lambda options: options["alpha"] == 1, "scale-invariant"),
    ),
    variants=({"alpha": 1.0}, {"alpha": 0.5}, {"alpha": 0.0}),
)
def fairgrad(
    gram: Array,
    eps: float | None = None,
    *,
    alpha: Annotated[float, NON_NEGATIVE] = 2.0,
) -> Solution | Array:
    """The α-fair improvements of all objectives, from their largest sum to equal ones.

    d = Jᵀw with (Gw)ᵢ = wᵢ^(−1/α), w > 0 (equation 4): every objective improves, by (Gw)ᵢ.

    Found as the minimum of a strictly convex function, so that w is unique. α = 1 is `nash-mtl`; a
    larger α cares more for the objective that improves least. α = 0 asks for the sum of all
    improvements alone: w = 1, so the sum of the gradients, which may conflict. For α > 0 d is zero
    where they are Pareto stationary.

    Args:
        alpha: α >= 0; 2 in the official runs. Between 0 and 1e-5 no weights can be computed.

    Example:
        >>> from gradsurgery import get_strategy
        >>> fairgrad = get_strategy("fairgrad")
        >>> fairgrad.weights([[1.0, 0.0], [0.0, 8.0]]).round(9).tolist()
        [1.0, 0.25]
    """
    if alpha == 0:
        return np.ones(len(gram))
    return alpha_fair(gram, alpha, eps)

"""cagrad: conflict-averse gradient descent."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    PerObjective,
    by_objective,
    homogeneous,
    strategy,
    when,
)
from gradsurgery.solvers import Solution, best_worst
from gradsurgery.types import Array


@strategy(
    "cagrad",
    paper="Liu et al. 2021, arXiv:2110.14048",
    scale="mean",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        when("c >= 1", lambda options: options["c"] >= 1, "non-conflicting", "strict"),
        when("c = 0", lambda options: options["c"] == 0, "sums-to-one"),
    ),
    variants=(
        {"c": 0.0},
        {"c": 1.0},
        {"c": 2.0, "rescale": 1},
        {"c": 1.0, "rescale": 2},
        {"preference": {str(i): 1.0 + i for i in range(64)}},
        {"preference": {str(i): 1.0 + i for i in range(64)}, "c": 1.0},
    ),
    inputs=lambda options: (
        {"gram", "eps"} | (set() if options["preference"] is None else {"objectives"})
    ),
)
def cagrad(
    gram: Array,
    objectives: tuple[str, ...] | None = None,
    eps: float | None = None,
    *,
    c: Annotated[float, NON_NEGATIVE] = 0.5,
    rescale: Literal["none", 1, 2] = "none",
    preference: Annotated[Any, PerObjective(POSITIVE)] | None = None,
) -> Solution:
    """In a ball around the mean gradient, the direction whose least improvement is largest.

    max over d of minᵢ ⟨gᵢ, d⟩ s.t. ‖d − g₀‖ <= c‖g₀‖, g₀ the mean gradient (equation 3;
    Algorithm 1).

    By the dual, d = g₀ + c‖g₀‖ g_w/‖g_w‖ with w = argmin over the simplex of ⟨g_w, g₀⟩ +
    c‖g₀‖‖g_w‖. Where g_w is only rounding (Pareto stationary although g₀ ≠ 0), d is the projection
    of g₀ onto the cone of non-conflicting directions. c = 0 is the mean; for c >= 1 d is
    non-conflicting.

    With preferences p the ball is around g₀ = Σ pᵢgᵢ/Σp, as in section 3.2 of Chen et al. 2026
    (RACO, arXiv:2602.02495), without its clipping of w. The gᵢ whose least improvement counts stay
    as they are, while `weights=` multiply the losses and so these, too.

    Args:
        c: the radius of the ball, in units of ‖g₀‖.
        rescale: "none" (the paper), 1 divides d by 1 + c² (the official code), 2 by 1 + c.
        preference: p > 0: a number, a dict by name, or numbers in the order of the losses. None is
            1 for all.

    Raises:
        InputError: when an objective has no preference.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("cagrad", c=0.0).weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [0.5, 0.5]
        >>> cagrad = get_strategy("cagrad", c=0.0, preference={"0": 3.0, "1": 1.0})
        >>> cagrad.weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [0.75, 0.25]
    """
    center = None
    if preference is not None:
        assert objectives is not None
        wanted = by_objective("preference", preference, objectives)
        center = wanted / wanted.max()  # so that the sum of large numbers stays finite
        center /= center.sum()
    solution = best_worst(gram, c, eps, center)
    return replace(solution, value=solution.value / {"none": 1.0, 1: 1 + c * c, 2: 1 + c}[rescale])

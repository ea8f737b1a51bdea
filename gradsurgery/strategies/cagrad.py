"""cagrad: conflict-averse gradient descent."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
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
    also=("conflict-averse gradient descent",),
    about=About(
        family="equal improvement",
        use=(
            "The mean loss should fall, with a bounded detour in favour of the objective that "
            "improves least."
        ),
        avoid=(
            "No objective may rise: with the default c = 0.5 that is not promised; take c >= 1, "
            "`upgrad` or `dualproj`."
        ),
        maths=(
            r"d = \arg\max_{\lVert d - g_0\rVert \le c \lVert g_0\rVert}\; "
            r"\min_i\, \langle g_i, d\rangle, \qquad g_0 = \frac1n \sum_i g_i"
        ),
        papers=(
            Citation(
                title="Conflict-Averse Gradient Descent for Multi-task Learning",
                authors=("Bo Liu", "Xingchao Liu", "Xiaojie Jin", "Peter Stone", "Qiang Liu"),
                year=2021,
                venue="NeurIPS",
                arxiv="2110.14048",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        related={
            "RACO": (
                "it is cagrad with preference=, and clips its weights besides (arXiv:2602.02495, "
                "section 3.2)."
            ),
            "log_cagrad": "give the logarithms of the losses.",
        },
        differs=(
            (
                "The official code divides the direction by 1 + c² (`rescale=1`); the paper's "
                "Algorithm 1 does not."
            ),
        ),
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

"""fairgrad: fair resource allocation."""

from typing import Annotated, Any

import numpy as np

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
    variants=(
        {"alpha": 1.0},
        {"alpha": 0.5},
        {"alpha": 0.0},
        {"preference": {str(i): 1.0 + i for i in range(64)}},
        {"preference": {str(i): 1.0 + i for i in range(64)}, "alpha": 1.0},
    ),
    inputs=lambda options: (
        {"gram", "eps"} | (set() if options["preference"] is None else {"objectives"})
    ),
    also=("fair resource allocation",),
    about=About(
        family="equal improvement",
        use="Every objective has to improve, and α says how much the worst one counts.",
        avoid="Gradients are nearly stationary: the step's length has little to do with theirs.",
        maths=r"d = J^\top w, \qquad (G w)_i = w_i^{-1/\alpha}, \quad w > 0",
        papers=(
            Citation(
                title="Fair Resource Allocation in Multi-Task Learning",
                authors=("Hao Ban", "Kaiyi Ji"),
                year=2024,
                venue="ICML",
                arxiv="2402.15638",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        related={
            "PIVRG": (
                "it is fairgrad with preference= from how much worse each objective is than when "
                "trained alone (see the page of fairgrad)."
            ),
        },
        differs=("The default α of the official class is 1, that of its runs 2, as here.",),
    ),
)
def fairgrad(
    gram: Array,
    objectives: tuple[str, ...] | None = None,
    eps: float | None = None,
    *,
    alpha: Annotated[float, NON_NEGATIVE] = 2.0,
    preference: Annotated[Any, PerObjective(POSITIVE)] | None = None,
) -> Solution | Array:
    """The α-fair improvements of all objectives, from their largest sum to equal ones.

    d = Jᵀw with (Gw)ᵢ = wᵢ^(−1/α), w > 0 (equation 4): every objective improves, by (Gw)ᵢ.

    Found as the minimum of a strictly convex function, so that w is unique. α = 1 is `nash-mtl`; a
    larger α cares more for the objective that improves least. α = 0 asks for the sum of all
    improvements alone: w = 1, so the sum of the gradients, which may conflict. For α > 0 d is zero
    where they are Pareto stationary.

    With preferences p it is (Gw)ᵢ = (pᵢ/wᵢ)^(1/α), and w = p for α = 0. PIVRG (Qin et al. 2025,
    CVPR) has α = 2 and p = n·softmax(s/T), s how much worse each objective is than when trained
    alone, T = max((max s − min s)/log 2, 10) in its official runs. s is measured outside of a
    step, so that p is given here. Unlike `weights=`, p changes no gradient: the user's own weights
    multiply the losses.

    Args:
        alpha: α >= 0; 2 in the official runs. Between 0 and 1e-5 no weights can be computed.
        preference: p > 0: a number, a dict by name, or numbers in the order of the losses. None is
            1 for all.

    Raises:
        InputError: when an objective has no preference.

    Example:
        >>> from gradsurgery import get_strategy
        >>> fairgrad = get_strategy("fairgrad")
        >>> fairgrad.weights([[1.0, 0.0], [0.0, 8.0]]).round(9).tolist()
        [1.0, 0.25]
    """
    wanted = None
    if preference is not None:
        assert objectives is not None
        wanted = by_objective("preference", preference, objectives)
    if alpha == 0:
        return np.ones(len(gram)) if wanted is None else wanted
    return alpha_fair(gram, alpha, eps, wanted)

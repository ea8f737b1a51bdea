"""nash-mtl: multi-task learning as a bargaining game."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
    About,
    Citation,
    PerObjective,
    by_objective,
    homogeneous,
    strategy,
)
from gradsurgery.solvers import Solution, alpha_fair
from gradsurgery.types import Array


@strategy(
    "nash-mtl",
    paper="Navon et al. 2022, arXiv:2202.01017",
    scale="own",
    claims=(
        "non-conflicting",
        "strict",
        homogeneous(0),
        "scale-invariant",
        "permutation-equivariant",
        "deterministic",
    ),
    variants=({"max_norm": 1.0}, {"preference": {str(i): 1.0 + i for i in range(64)}}),
    inputs=lambda options: (
        {"gram", "eps"} | (set() if options["preference"] is None else {"objectives"})
    ),
    also=("Nash bargaining", "bargaining game"),
    about=About(
        family="equal improvement",
        use="Every objective has to improve, whatever the sizes of losses and gradients.",
        avoid=(
            "Plain SGD without clipping: the step has a fixed length, however small the gradients "
            "are."
        ),
        maths=r"d = J^\top \alpha, \qquad (G \alpha)_i = \frac{1}{\alpha_i}, \quad \alpha > 0",
        papers=(
            Citation(
                title="Multi-Task Learning as a Bargaining Game",
                authors=(
                    "Aviv Navon",
                    "Aviv Shamsian",
                    "Idan Achituve",
                    "Haggai Maron",
                    "Kenji Kawaguchi",
                    "Gal Chechik",
                    "Ethan Fetaya",
                ),
                year=2022,
                venue="ICML",
                arxiv="2202.01017",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The official code solves for G/‖G‖, so that its d is √‖G‖ times this one, and "
                "then clips it to length 1 (`max_norm=1`)."
            ),
        ),
    ),
)
def nash_mtl(
    gram: Array,
    objectives: tuple[str, ...] | None = None,
    eps: float | None = None,
    *,
    max_norm: Annotated[float, POSITIVE] | None = None,
    preference: Annotated[Any, PerObjective(POSITIVE)] | None = None,
) -> Solution:
    """The Nash bargaining solution: the largest product of improvements at a given length.

    d = Jᵀα with (Gα)ᵢ = 1/αᵢ, α > 0 (equation 2 and claim 3.1), so that every objective improves
    and ‖d‖² = n exactly.

    α is the minimum of ½αᵀGα − Σ log αᵢ, found by damped Newton steps on the cosines. The length
    of d says nothing about the gradients': with plain SGD that is a step of fixed length. Where
    the gradients are Pareto stationary d is zero.

    The official code solves for G/‖G‖, so that its α and d are √‖G‖ times these, and then clips d
    to length 1. With `max_norm=1.0` the two differ only where its d is shorter than 1.

    With preferences p it is the asymmetric Nash bargaining solution, argmax Π ⟨gᵢ, d⟩^pᵢ at a given
    length (Harsanyi & Selten 1972; Kalai 1977): (Gα)ᵢ = pᵢ/αᵢ and ‖d‖² = Σ pᵢ. Unlike `weights=`,
    which multiply the losses and so leave this d as it is, p moves it.

    Args:
        max_norm: shorten d to at most this length, as the official code does with 1; None does
            not.
        preference: p > 0, the bargaining powers: a number, a dict by name, or numbers in the order
            of the losses. None is 1 for all.

    Raises:
        InputError: when an objective has no preference.

    Example:
        >>> import numpy as np
        >>> from gradsurgery import get_strategy
        >>> get_strategy("nash-mtl").weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [1.0, 0.5]
        >>> chosen = get_strategy("nash-mtl", preference=[4.0, 1.0])
        >>> chosen.weights(np.eye(2)).round(9).tolist()
        [2.0, 1.0]
    """
    wanted = None
    if preference is not None:
        assert objectives is not None
        wanted = by_objective("preference", preference, objectives)
    solution = alpha_fair(gram, 1.0, eps, wanted)
    if max_norm is None or solution.objective <= max_norm**2:
        return solution
    return replace(solution, value=solution.value * (max_norm / np.sqrt(solution.objective)))

"""nash-mtl: multi-task learning as a bargaining game."""

from dataclasses import replace
from typing import Annotated

import numpy as np

from gradsurgery.contract import POSITIVE, homogeneous, strategy
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
    variants=({"max_norm": 1.0},),
)
def nash_mtl(
    gram: Array, eps: float | None = None, *, max_norm: Annotated[float, POSITIVE] | None = None
) -> Solution:
    """The Nash bargaining solution: the largest product of improvements at a given length.

    d = Jᵀα with (Gα)ᵢ = 1/αᵢ, α > 0 (equation 2 and claim 3.1), so that every objective improves
    and ‖d‖² = n exactly.

    α is the minimum of ½αᵀGα − Σ log αᵢ, found by damped Newton steps on the cosines. The length
    of d says nothing about the gradients': with plain SGD that is a step of fixed length. Where
    the gradients are Pareto stationary d is zero.

    The official code solves for G/‖G‖, so that its α and d are √‖G‖ times these, and then clips d
    to length 1. With `max_norm=1.0` the two differ only where its d is shorter than 1.

    Args:
        max_norm: shorten d to at most this length, as the official code does with 1; None does
            not.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("nash-mtl").weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [1.0, 0.5]
    """
    solution = alpha_fair(gram, 1.0, eps)
    if max_norm is None or solution.objective <= max_norm**2:
        return solution
    return replace(solution, value=solution.value * (max_norm / np.sqrt(solution.objective)))

"""mgda: multiple gradient descent algorithm."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from gradsurgery.contract import homogeneous, positive_losses, strategy, when
from gradsurgery.solvers import Solution, at_rounding_floor, min_norm
from gradsurgery.solvers.min_norm import EXACT, Method
from gradsurgery.types import Array


def _exact(options: dict[str, Any]) -> bool:
    return options["solver"] in EXACT


def _unit(options: dict[str, Any]) -> bool:
    return options["normalize"] in ("l2", "loss+")


@strategy(
    "mgda",
    paper="Désidéri 2012; Sener & Koltun 2018, arXiv:1810.04650",
    scale="convex",
    claims=(
        "deterministic",
        when("the solver is exact", _exact, "non-conflicting", "strict", "permutation-equivariant"),
        when(
            "normalize is none or loss and the solver is exact",
            lambda options: not _unit(options) and _exact(options),
            homogeneous(1),
        ),
        when(
            "normalize is l2 or loss+ and the solver is exact",
            lambda options: _unit(options) and _exact(options),
            homogeneous(0),
            "scale-invariant",
        ),
        when("normalize is none", lambda options: options["normalize"] == "none", "sums-to-one"),
    ),
    inputs=lambda options: (
        {"gram", "eps"}
        | ({"losses", "objectives"} if options["normalize"] in ("loss", "loss+") else set())
    ),
    variants=(
        {"normalize": "l2"},
        {"normalize": "loss"},
        {"normalize": "loss+"},
        {"solver": "active-set"},
        {"solver": "frank-wolfe"},
    ),
    also=("min-norm", "MGDA-UB", "multiple gradient descent"),
)
def mgda(
    gram: Array,
    losses: Array | None = None,
    objectives: tuple[str, ...] | None = None,
    eps: float | None = None,
    *,
    normalize: Literal["none", "l2", "loss", "loss+"] = "none",
    solver: Method = "auto",
) -> Solution:
    """The min-norm point of the convex hull of the gradients.

    d = Jᵀw, w = argmin wᵀGw over the simplex (w >= 0, Σw = 1): equation 3 of Sener & Koltun.

    ⟨gᵢ, d⟩ >= ‖d‖² for every i, so that d is non-conflicting. Where the gradients are Pareto
    stationary up to rounding (‖d‖² <= 10·eps·(Σ wⱼnⱼ)²) the direction is exactly zero and so are
    the weights.

    With a normalisation the problem is solved on gᵢ/cᵢ, and the same scaled gradients are
    combined, d = Σ αᵢ gᵢ/cᵢ. Weights found on scaled gradients but applied to the raw ones would
    lose the guarantee.

    Args:
        normalize: cᵢ: "none" 1, "l2" nᵢ, "loss" Lᵢ, "loss+" Lᵢ·nᵢ. Losses have to be positive
            where they are used.
        solver: the method of `gradsurgery.solvers.min_norm`. "frank-wolfe" is accurate to 1e-6, so
            d may conflict by as much.

    Raises:
        InputError: when a loss is not positive under "loss" or "loss+"; the message names it.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("mgda").weights([[1.0, 0.0], [0.0, 3.0]]).round(2).tolist()
        [0.75, 0.25]
    """
    divisor: Array | float = 1.0
    if normalize in ("loss", "loss+"):
        divisor = divisor * positive_losses(
            f"strategy 'mgda' with normalize={normalize!r}", losses, objectives
        )
    if normalize in ("l2", "loss+"):
        norms = np.sqrt(np.diagonal(gram))
        divisor = divisor * np.where(norms > 0, norms, 1.0)
    scaled = gram if isinstance(divisor, float) else gram / divisor / divisor[:, None]
    solution = min_norm(scaled, solver)
    if at_rounding_floor(scaled, solution.value, eps):
        return replace(solution, value=np.zeros(len(gram)))
    return replace(solution, value=solution.value / divisor)

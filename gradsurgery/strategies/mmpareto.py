"""mmpareto: MMPareto, for multimodal models."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np

from gradsurgery.contract import POSITIVE, About, Citation, Range, homogeneous, strategy, when
from gradsurgery.solvers import DEFAULT_EPS, Solution, at_rounding_floor, min_norm, split
from gradsurgery.solvers.min_norm import EXACT, Method
from gradsurgery.types import Array


def _exact(options: dict[str, Any]) -> bool:
    return options["solver"] in EXACT


def _one_factor(options: dict[str, Any]) -> bool:
    return options["rescale"] != "tensor" and _exact(options)


@strategy(
    "mmpareto",
    paper="Wei & Hu 2024, arXiv:2405.17730",
    scale="sum",
    claims=(
        "deterministic",
        when("the solver is exact", _exact, homogeneous(1), "permutation-equivariant"),
        when(
            "rescale is group or none and the solver is exact",
            _one_factor,
            "non-conflicting",
            "strict",
        ),
    ),
    inputs=lambda options: (
        {"gram", "eps"} | ({"block_grams"} if options["rescale"] == "tensor" else set())
    ),
    variants=(
        {"rescale": "none", "gamma": 1.0},
        {"rescale": "tensor"},
        {"gamma_on": "conflict", "max_rescale": 5.0},
        {"solver": "frank-wolfe"},
    ),
    about=About(
        family="modalities",
        use=(
            "Encoders of a multimodal model have losses of their own beside the joint one, which "
            "may conflict."
        ),
        avoid=(
            "A larger learning rate for the encoders does the same: compare with `scaled-sum`, by "
            "whose γ it lengthens every step."
        ),
        maths=(
            r"d = \begin{cases} \gamma \sum_i g_i & \text{no pair conflicts} \\ \gamma\, h "
            r"\max\left(1, \frac{\lVert \sum_i g_i\rVert}{\lVert h\rVert}\right) & \text{else} "
            r"\end{cases} \qquad h = n \sum_i \alpha_i g_i \text{ at the min-norm } \alpha"
        ),
        papers=(
            Citation(
                title="MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance",
                authors=("Yake Wei", "Di Hu"),
                year=2024,
                venue="ICML",
                arxiv="2405.17730",
                source="README of github.com/GeWu-Lab/MMPareto_ICML2024",
            ),
        ),
        differs=(
            (
                "The official code restores the length per parameter tensor, which bends the "
                'direction and loses the paper\'s guarantee (`rescale="tensor"`).'
            ),
            (
                "The official code tests cos > 0, so that orthogonal gradients go to the solver, "
                "and multiplies both cases by γ = 1.5."
            ),
        ),
    ),
)
def mmpareto(
    gram: Array,
    block_grams: Array | None = None,
    eps: float | None = None,
    *,
    gamma: Annotated[float, POSITIVE] = 1.5,
    gamma_on: Literal["always", "conflict"] = "always",
    rescale: Literal["group", "tensor", "none"] = "group",
    max_rescale: Annotated[float, Range(1)] = 100,
    solver: Method = "auto",
) -> Solution | Array:
    """The min-norm direction where gradients conflict, as long as their sum; else the sum.

    No pair in conflict: d = γ Σ gᵢ. Else h = n Σ αᵢ gᵢ at the min-norm α, lengthened to the sum: d
    = γ h max(1, ‖Σg‖/‖h‖).

    Section 4 of the paper, for n >= 2 objectives on a group (n = 2 in a multimodal encoder: its
    unimodal loss and the joint one). ⟨h, gᵢ⟩ >= ‖h‖²/n > 0, and one positive factor keeps that, so
    that d is non-conflicting. A zero gradient is left out of the problem. Where the min-norm point
    is nothing but rounding, d is zero.

    Args:
        gamma: γ; the official code's 1.5.
        gamma_on: "always" multiplies both cases by γ, as the official code does; "conflict" only
            the second.
        rescale: "group" restores the length with one factor for the whole group. "tensor" does it
            per parameter tensor and takes cos = 0 for a conflict, which reproduces the official
            code, bends the direction and loses the guarantee. "none" keeps h.
        max_rescale: the largest factor ‖Σg‖/‖h‖ allowed under "group"; it grows without bound near
            stationarity. Not applied under "tensor".
        solver: the method of `gradsurgery.solvers.min_norm`. "frank-wolfe" is accurate to 1e-6, so
            d may conflict by as much.

    Example:
        >>> from gradsurgery import get_strategy
        >>> mmpareto = get_strategy("mmpareto", gamma=1.0)
        >>> mmpareto.weights([[1.0, 0.5], [0.5, 1.0]]).tolist()
        [1.0, 1.0]
        >>> mmpareto.weights([[1.0, -0.5], [-0.5, 1.0]]).tolist()
        [1.0, 1.0]
        >>> mmpareto.weights([[1.0, -1.0], [-1.0, 4.0]]).round(3).tolist()
        [1.89, 0.756]
    """
    cosines, norms = split(gram)
    live = np.flatnonzero(norms > 0)
    n = len(gram)
    off_diagonal = cosines[np.ix_(live, live)][~np.eye(len(live), dtype=bool)]
    conflict = bool((off_diagonal <= 0).any() if rescale == "tensor" else (off_diagonal < 0).any())
    if not conflict:
        return np.full(n, gamma if gamma_on == "always" else 1.0)
    block = gram[np.ix_(live, live)]
    solution = min_norm(block, solver)
    weights = np.zeros(n)
    if at_rounding_floor(block, solution.value, eps):
        return replace(solution, value=weights)
    weights[live] = len(live) * solution.value
    if rescale == "tensor":
        assert block_grams is not None
        factors = np.array([_lengthening(b, weights, eps) for b in block_grams])
        return replace(solution, value=gamma * factors[:, None] * weights)
    factor = _lengthening(gram, weights, 0.0) if rescale == "group" else 1.0
    return replace(solution, value=gamma * min(factor, max_rescale) * weights)


def _lengthening(gram: Array, weights: Array, eps: float | None) -> float:
    """max(1, ‖Σg‖/‖Jᵀw‖); 0 where Jᵀw is only rounding, so that noise is not lengthened."""
    squared = float(weights @ gram @ weights)
    size = float(weights @ np.sqrt(np.diagonal(gram)))
    if squared <= (DEFAULT_EPS if eps is None else eps) * size * size:
        return 0.0 if size > 0 else 1.0
    return max(1.0, float(np.sqrt(max(gram.sum(), 0.0) / squared)))

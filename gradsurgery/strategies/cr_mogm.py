"""cr-mogm: averaged weights for stochastic multi-objective gradient methods."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    SHARE,
    About,
    Citation,
    Claim,
    PerObjective,
    State,
    Strategy,
    by_objective,
    forwarded,
    get_strategy,
    strategy,
)
from gradsurgery.errors import StrategyError
from gradsurgery.solvers import Solution
from gradsurgery.types import Array


def _base(options: Mapping[str, Any]) -> Strategy:
    base = get_strategy(options["base"])
    if {"rows", "cross", "block_grams"} & base.inputs or base.function is cr_mogm:
        raise StrategyError(
            "strategy 'cr-mogm' averages one weight per objective, so that it cannot wrap "
            f"{base!r}."
        )
    return base


def _promising(options: Mapping[str, Any]) -> Strategy:
    """The wrapped strategy with the claims that are kept, whatever the initial weights are."""
    base = _base(options)
    if options["initial"] is None:
        return base
    kept = ("permutation-equivariant", "deterministic")

    def stays(claim: Claim) -> bool:
        of_degree_one = claim.name == "homogeneous" and claim.degree_under(base.options) == 1
        return of_degree_one or claim.name in kept

    return replace(base, claims=tuple(claim for claim in base.claims if stays(claim)))


def _inputs(options: Mapping[str, Any]) -> set[str]:
    """Those of the wrapped strategy; names too where initial weights are found by them."""
    own = {"state"} if options["initial"] is None else {"state", "objectives"}
    return own | _base(options).inputs


@strategy(
    "cr-mogm",
    paper="Zhou et al. 2022, NeurIPS (CR-MOGM)",
    scale="own",
    claims=forwarded("the wrapped strategy promises it", _promising),
    inputs=_inputs,
    variants=(
        {"base": "pcgrad"},
        {"base": "dualproj"},
        {"base": "mgda(normalize='l2')"},
        {"initial": 1.0},
    ),
    also=("correlation-reduced multi-objective gradient manipulation",),
    about=About(
        family="wrappers",
        use="Another strategy's weights jump from batch to batch.",
        avoid="A promise of the wrapped strategy must hold in each step: it holds in the first.",
        maths=(
            r"d = J^\top \lambda_k, \qquad \lambda_k = \alpha \lambda_{k-1} + (1 - \alpha)\, "
            r"\hat\lambda_k"
        ),
        papers=(
            Citation(
                title=(
                    "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and "
                    "Beyond"
                ),
                authors=(
                    "Shiji Zhou",
                    "Wenpeng Zhang",
                    "Jiyan Jiang",
                    "Wenliang Zhong",
                    "Jinjie Gu",
                    "Wenwu Zhu",
                ),
                year=2022,
                venue="NeurIPS",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
    ),
)
def cr_mogm(
    state: State,
    gram: Array | None = None,
    losses: Array | None = None,
    observed: Array | None = None,
    scores: dict[str, float] | None = None,
    objectives: tuple[str, ...] | None = None,
    group: str | None = None,
    rng: np.random.Generator | None = None,
    eps: float | None = None,
    *,
    base: str | Strategy = "mgda",
    alpha: Annotated[float, SHARE] = 0.9,
    initial: Annotated[Any, PerObjective()] | None = None,
) -> Solution | Array:
    """The weights of another strategy, averaged over the steps.

    d = Jᵀλ with λₖ = αλₖ₋₁ + (1 − α)λ̂ₖ, λ̂ the weights of the wrapped strategy (Algorithm 1).

    The average starts at the first step's λ̂, so that the first step is the wrapped strategy's,
    with all that it promises. Later steps are steadier, and what is promised for the newest
    gradients alone no longer holds. Scale and inputs are those of the wrapped strategy. One that
    acts on losses is asked per group here, so that heads keep their plain gradient. An objective
    that was not there before starts at its own λ̂.

    Args:
        base: the strategy that is wrapped: a name, also with options as in "cagrad(c=0.4)", or a
            `Strategy`.
        alpha: α, how much of the past is kept.
        initial: λ₀, which the average then starts from: one number for all, a dict by name, or
            numbers in the order of the losses. Nothing is promised of the signs of ⟨gᵢ, d⟩ then.
            None is the first step's λ̂.

    Raises:
        StrategyError: for a strategy without weights.
        InputError: when an objective has no initial weight.

    Example:
        >>> import gradsurgery as gs
        >>> steady, state = gs.get_strategy("cr-mogm", base="mgda"), gs.State()
        >>> steady.weights([[1.0, 0.0], [0.0, 1.0]], state=state).tolist()
        [0.5, 0.5]
        >>> steady.weights([[1.0, 0.0], [0.0, 3.0]], state=state).round(3).tolist()
        [0.525, 0.475]
    """
    wrapped = _base({"base": base})
    given = {
        "gram": gram, "losses": losses, "observed": observed, "scores": scores,
        "objectives": objectives, "group": group, "rng": rng, "eps": eps, "state": state,
    }  # fmt: skip
    count = len(state.objectives)
    outcome = wrapped.solve(given, count)
    assert outcome.weights is not None
    average = state.vector("cr-mogm", np.nan)
    new = np.isnan(average)
    if initial is not None:
        names = state.objectives if objectives is None else objectives
        average[new] = by_objective("initial", initial, names)[new]
        new = np.zeros_like(new)
    average[:] = np.where(new, outcome.weights, alpha * average + (1 - alpha) * outcome.weights)
    if outcome.gap is None or outcome.converged is None:
        return average
    return Solution(average, outcome.gap, 0, outcome.converged)

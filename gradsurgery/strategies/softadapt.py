"""softadapt: weights from the slopes of the losses."""

from itertools import pairwise
from math import comb
from typing import Annotated, Literal

import numpy as np

from gradsurgery.contract import (
    About,
    Citation,
    Range,
    State,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.solvers import softmax
from gradsurgery.types import Array


@strategy(
    "softadapt",
    paper="Heydari et al. 2019, arXiv:1912.12355",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("SoftAdapt",),
    about=About(
        family="losses",
        use="Losses fall at different rates, and a weighting at no cost is wanted.",
        avoid="Losses differ in size: slopes are absolute unless normalized.",
        maths=r"w = \mathrm{softmax}(\beta s), \qquad s_i \text{ the slope of } L_i",
        papers=(
            Citation(
                title=(
                    "SoftAdapt: Techniques for Adaptive Loss Weighting of Neural Networks with "
                    "Multi-Part Loss Functions"
                ),
                authors=("A. Ali Heydari", "Craig A. Thompson", "Asif Mehmood"),
                year=2019,
                arxiv="1912.12355",
                source="README of github.com/dr-aheydari/SoftAdapt",
            ),
        ),
        differs=(
            (
                "The official code adds 1e-8 to the denominator of the normalized slopes, and "
                "takes the slope at the oldest of its values, as here."
            ),
        ),
    ),
)
def softadapt(
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    beta: float = 0.1,
    variant: Literal["original", "normalized", "loss-weighted"] = "original",
    order: Annotated[int, Range(1, 10)] = 4,
    window: Annotated[int, Range(1)] = 1,
) -> Array:
    """The faster a loss rises, the larger its weight: a softmax of the losses' slopes.

    w = softmax(βs), "normalized" with sᵢ/Σⱼsⱼ in place of sᵢ, "loss-weighted" wᵢ ∝ L̄ᵢ exp(βsᵢ).

    sᵢ is the forward difference of accuracy `order` over the last order + 1 values, L̄ᵢ their mean.
    A value is the mean loss of one window. This is the official code, whose example takes five
    values; the difference is the slope at the oldest one. That code adds 1e-8 to the denominator.

    All weights are 1 until the first slope is known, and sum to one from then on, as in that code.
    Later an objective without a slope counts as one of slope 0. Slopes that sum to zero are not
    normalized: all weights are then equal. Where all slopes are negative, "normalized" turns their
    order around, so that the fastest falling loss has the largest weight.

    Args:
        beta: β; below zero the fastest falling loss has the largest weight.
        variant: "original", "normalized" or "loss-weighted".
        order: the accuracy of the difference, one less than the number of its values.
        window: how many steps are averaged for a value: 1 for each step, or those of an epoch.

    Raises:
        InputError: when a loss is negative under "loss-weighted"; the message names it.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> adaptive, state = gs.get_strategy("softadapt", order=1), gs.State()
        >>> for losses in ([1.0, 10.0], [2.0, 1.0]):
        ...     weights = adaptive.weights(np.eye(2), losses=losses, state=state)
        >>> weights.round(3).tolist()
        [0.731, 0.269]
    """
    if variant == "loss-weighted":
        losses = losses_from_zero("strategy 'softadapt'", losses, objectives)
    values = _values(losses, state, order, window)
    known = ~np.isnan(values).any(0)
    if not known.any():
        return np.ones(len(losses))
    k = np.arange(1, order + 1)
    rest = np.array([(-1.0) ** (i + 1) * comb(order, i) / i for i in range(1, order + 1)])
    slopes = np.where(known, np.concatenate([[-(1 / k).sum()], rest]) @ values, 0.0)
    if variant == "normalized":
        total = float(slopes.sum())
        slopes = slopes / total if total else np.zeros(len(slopes))
    weights = softmax(beta * slopes)
    if variant == "loss-weighted":
        means = np.where(known, values.mean(0), losses)
        weights = weights * (means / (means.max() or 1.0))
        total = float(weights.sum())
        weights = weights / total if total else np.full(len(weights), 1 / len(weights))
    return np.asarray(weights)


def _values(losses: Array, state: State, order: int, window: int) -> Array:
    """The last values [order + 1, n], the oldest first; NaN where there is none yet."""
    values = [state.vector(f"value {i}", np.nan) for i in range(order + 1)]
    count, total = state.vector("steps", 0.0), state.vector("total", 0.0)
    count += 1
    total += losses
    full = count >= window
    for older, newer in pairwise(values):
        older[full] = newer[full]
    values[-1][full] = (total / count)[full]
    count[full] = total[full] = 0.0
    return np.stack(values)

"""dwa: dynamic weight average."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
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
    "dwa",
    paper="Liu et al. 2019, arXiv:1803.10704",
    scale="sum",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("dynamic weight average", "dynamic weight averaging"),
    about=About(
        family="losses",
        use="Losses fall at different rates, and weights at no cost are wanted.",
        avoid="Losses are noisy within a window: their ratios then say little.",
        maths=r"w = n\, \mathrm{softmax}(r / T), \qquad r_i = \frac{\bar L_i(t-1)}{\bar L_i(t-2)}",
        papers=(
            Citation(
                title="End-To-End Multi-Task Learning With Attention",
                authors=("Shikun Liu", "Edward Johns", "Andrew J. Davison"),
                year=2019,
                venue="CVPR",
                arxiv="1803.10704",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The paper averages losses over an epoch; a strategy knows no epochs, so "
                "`window=` is in steps."
            ),
        ),
    ),
)
def dwa(
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    temperature: Annotated[float, POSITIVE] = 2.0,
    window: Annotated[int, Range(1)] = 100,
) -> Array:
    """The more slowly a loss falls, the larger its weight.

    w = n·softmax(r/T) with rᵢ = L̄ᵢ(t − 1)/L̄ᵢ(t − 2), L̄(t) the mean loss over the t-th window
    (equation 7).

    In the first two windows, and for an objective that was not there for two whole windows, r is
    1. So it is where L̄(t − 2) is exactly zero, since there is no rate then.

    Args:
        temperature: T; the larger, the more even are the weights.
        window: how many steps are averaged: the paper's epoch.

    Raises:
        InputError: when a loss is negative; the message names it.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> average, state = gs.get_strategy("dwa", window=1), gs.State()
        >>> for losses in ([1.0, 1.0], [1.0, 0.5], [1.0, 0.5]):
        ...     weights = average.weights(np.eye(2), losses=losses, state=state)
        >>> weights.round(3).tolist()
        [1.124, 0.876]
    """
    losses = losses_from_zero("strategy 'dwa'", losses, objectives)
    count, total, last, before = (
        state.vector(name, start)
        for name, start in (("steps", 0.0), ("total", 0.0), ("last", np.nan), ("before", np.nan))
    )
    full = count >= window
    before[full], last[full] = last[full], (total / np.maximum(count, 1.0))[full]
    count[full] = total[full] = 0.0
    count += 1
    total += losses
    unknown = np.isnan(before) | (before == 0)
    rate = np.where(unknown, 1.0, last / np.where(unknown, 1.0, before))
    return np.asarray(len(losses) * softmax(rate / temperature))

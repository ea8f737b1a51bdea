"""uw: uncertainty weighting."""

import math
from typing import Annotated

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
    About,
    Citation,
    Optimizer,
    State,
    descend,
    homogeneous,
    strategy,
    warn_of_underflow,
)
from gradsurgery.types import Array


@strategy(
    "uw",
    paper="Kendall et al. 2018, arXiv:1705.07115",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("uncertainty", "uncertainty weighting", "homoscedastic", "Kendall"),
    about=About(
        family="losses",
        use="Losses differ in size and noise, in one backward pass.",
        avoid="Losses are large or change fast: the learned variances follow slowly.",
        maths=(
            r"\nabla \sum_i \tfrac12 \left(e^{-s_i} L_i + s_i\right), \qquad s_i = \log "
            r"\sigma_i^2 \text{ learned}"
        ),
        papers=(
            Citation(
                title=(
                    "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and "
                    "Semantics"
                ),
                authors=("Alex Kendall", "Yarin Gal", "Roberto Cipolla"),
                year=2018,
                venue="CVPR",
                arxiv="1705.07115",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The paper trains the variances with the model; here they have a learning rate of "
                "their own, and move by at most 1 per step."
            ),
        ),
    ),
)
def uw(
    losses: Array,
    state: State,
    *,
    lr: Annotated[float, POSITIVE] = 2.5e-3,
    optimizer: Optimizer = "sgd",
) -> Array:
    """Each loss is weighted by its learned homoscedastic uncertainty.

    The gradient of Σᵢ ½(e^(−sᵢ) Lᵢ + sᵢ), s = log σ² learned (equation 7 of the paper, with its
    log variance). wᵢ = ½e^(−sᵢ); then sᵢ takes a step of its own. s starts at 0, so that the first
    weights are ½.

    One step moves s by at most 1, so a weight by a factor of e at most. At a loss of 4e4 plain
    gradient descent would move s by 50 and switch that loss off for good, since s returns by lr/2
    per step. A weight below 1e-9 that leaves its loss no part in the sum is warned of.

    Args:
        lr: the learning rate of s; the paper trains everything by gradient descent at 2.5e-3.
        optimizer: what moves s: "adam" or "sgd".

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> uw, state = gs.get_strategy("uw", lr=0.1), gs.State()
        >>> uw.weights(np.eye(2), losses=[1.0, 3.0], state=state).tolist()
        [0.5, 0.5]
        >>> uw.weights(np.eye(2), losses=[1.0, 3.0], state=state).round(3).tolist()
        [0.5, 0.452]
    """
    logs = state.vector("log variance", 0.0)
    weights = 0.5 * np.exp(-logs)
    warn_of_underflow("uw", state, weights, losses, math.ceil(2 / lr))
    slope = 0.5 - weights * losses
    logs[:] = descend(state, "log variance", logs, slope, lr, optimizer, longest=1.0)
    return np.asarray(weights)

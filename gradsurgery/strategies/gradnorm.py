"""gradnorm: gradient normalization."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
    Optimizer,
    State,
    descend,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.errors import InputError
from gradsurgery.types import Array


@strategy(
    "gradnorm",
    paper="Chen et al. 2018, arXiv:1711.02257",
    scale="sum",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("gradient normalization",),
    about=About(
        family="lengths",
        use="Gradients differ in length, and slower losses should gain.",
        avoid=(
            "Losses can be negative or begin at zero: training rates are ratios to the first loss."
        ),
        maths=(
            r"\min_w \sum_i \left| w_i n_i - \bar n\, r_i^\alpha \right|, \qquad r_i = \frac{L_i "
            r"/ L_i^0}{\operatorname{mean}_j (L_j / L_j^0)}"
        ),
        papers=(
            Citation(
                title=(
                    "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep "
                    "Multitask Networks"
                ),
                authors=("Zhao Chen", "Vijay Badrinarayanan", "Chen-Yu Lee", "Andrew Rabinovich"),
                year=2018,
                venue="ICML",
                arxiv="1711.02257",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The paper takes norms at the last shared layer; here they are those of the "
                "group, or of the representation with `features=`."
            ),
        ),
    ),
)
def gradnorm(
    gram: Array,
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    alpha: Annotated[float, NON_NEGATIVE] = 1.5,
    lr: Annotated[float, POSITIVE] = 0.025,
    optimizer: Optimizer = "adam",
) -> Array:
    """Weights learned so that all gradients have one length, more for losses that fall slowly.

    d = Σ wᵢgᵢ; then w takes a step on Σᵢ |wᵢnᵢ − n̄ rᵢ^α|, n̄ = mean(wn) and rᵢ = (Lᵢ/Lᵢ⁰)/mean,
    both held fixed (equation 2).

    w starts at 1 and is kept >= 0. It is rescaled after each step so that Σw stays the number of
    all objectives, those absent in this step included (Algorithm 1). Lᵢ⁰ is the loss of the
    objective's first step; a later one may be zero. Lengths are taken in units of n̄, so that
    their scale does not matter to the learning rate of w. One step moves a weight by at most 1,
    the mean weight: under "sgd" a gradient 1e6 times longer than the others would move it further.

    Args:
        alpha: α, how strongly objectives whose losses fall slowly are favoured.
        lr: the learning rate of w.
        optimizer: what moves w: "adam" or "sgd".

    Raises:
        InputError: when a loss is negative, or an objective's first loss is exactly zero; the
            message names it.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> gradnorm, state = gs.get_strategy("gradnorm"), gs.State()
        >>> gram, losses = np.diag([1.0, 9.0]), [1.0, 1.0]
        >>> for _ in range(2):
        ...     weights = gradnorm.weights(gram, losses=losses, state=state)
        >>> weights.round(3).tolist()
        [1.025, 0.975]
    """
    losses = losses_from_zero("strategy 'gradnorm'", losses, objectives)
    norms = np.sqrt(np.diagonal(gram))
    weights = state.vector("weights", 1.0)
    used = weights.copy()
    first = state.vector("first", np.nan)
    first[:] = np.where(np.isnan(first), losses, first)
    if (first == 0).any():
        name = objectives[int(np.argmax(first == 0))]
        raise InputError(
            f"strategy 'gradnorm': the first loss of {name!r} is 0, and later ones are divided by "
            "it: leave this objective out of the step until its loss is above 0."
        )
    rate = losses / first
    rate = rate / (rate.mean() or 1.0)
    mean = float((weights * norms).mean())
    if mean > 0:
        slope = norms / mean * np.sign(weights * norms - mean * rate**alpha)
        moved = descend(state, "weights", weights, slope, lr, optimizer, longest=1.0)
        moved = np.maximum(moved, 0.0)
        if moved.sum() > 0:
            weights[:] = moved * weights.sum() / moved.sum()
    return used

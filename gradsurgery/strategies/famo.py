"""famo: fast adaptive multitask optimization."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
    State,
    by_objective,
    descend,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.errors import warn
from gradsurgery.solvers import softmax
from gradsurgery.types import Array

SMALL = 1e-8


@strategy(
    "famo",
    paper="Liu et al. 2023, arXiv:2306.03792",
    scale="convex",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic", "sums-to-one"),
    also=("fast adaptive multitask optimization",),
    about=About(
        family="losses",
        use="There are many objectives, and a gradient per loss costs too much.",
        avoid="Losses can fall below their given minimum, or conflict itself has to be resolved.",
        maths=(
            r"w_i = c\, \frac{z_i}{D_i}, \qquad z = \mathrm{softmax}(\xi), \quad D = L - L_{\min} "
            r"+ \epsilon, \quad \frac1c = \sum_i \frac{z_i}{D_i}"
        ),
        papers=(
            Citation(
                title="FAMO: Fast Adaptive Multitask Optimization",
                authors=("Bo Liu", "Yihao Feng", "Peter Stone", "Qiang Liu"),
                year=2023,
                venue="NeurIPS",
                arxiv="2306.03792",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            "The weight decay of the official class is 1e-5, that of its runs 1e-3, as here.",
            (
                "The official code measures the losses again after each step; here that is "
                "`Surgery.observe`, and the next step's losses serve without it."
            ),
        ),
    ),
)
def famo(
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    observed: Array | None = None,
    *,
    lr: Annotated[float, POSITIVE] = 0.025,
    weight_decay: Annotated[float, NON_NEGATIVE] = 1e-3,
    minimum: Any = 0.0,
) -> Array:
    """Weights learned from the losses alone, so that all losses fall at the same rate.

    The gradient of c Σᵢ zᵢ log Dᵢ: wᵢ = c zᵢ/Dᵢ, z = softmax(ξ), D = L − L_min + 1e-8, 1/c = Σ z/D
    (equations 8 and 9, Algorithm 1).

    Then ξ takes Adam's step on J_softmaxᵀ(log D − log D'), with D' the same after the step on the
    parameters. Give the losses on the same data after the optimizer's step to
    `Surgery.observe(losses)`; without that the next step's losses serve as D', which are those of
    other data. Either way ξ moves at the beginning of the next step. A loss at its minimum has D =
    1e-8, so that it takes nearly all of the weight, as in the official code.

    Args:
        lr: Adam's learning rate for ξ.
        weight_decay: added to the gradient of ξ; 1e-3 in the official runs, 1e-5 in the official
            class.
        minimum: L_min: a number, a dict from name to number, or numbers in the order of the losses
            when those are a sequence.

    Raises:
        InputError: when a loss is below its minimum; the message names it.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> famo, state = gs.get_strategy("famo"), gs.State()
        >>> weights = famo.weights(np.eye(2), losses=[1.0, 3.0], state=state)
        >>> weights.round(3).tolist()
        [0.75, 0.25]
    """
    least = by_objective("minimum", minimum, objectives)
    where = "strategy 'famo' (less the minimum)"
    above = losses_from_zero(where, losses - least, objectives) + SMALL
    if len(above) > 1 and (above == SMALL).any():
        name = objectives[int(np.argmin(above))]
        warn(
            f"strategy 'famo': loss {name!r} is at its minimum and takes nearly all of the weight "
            "(z/D with D = 1e-8), so that the others hardly train: "
            "leave it out of losses in that step."
        )
    logits, last = state.vector("xi", 0.0), state.vector("last", np.nan)
    seen = ~np.isnan(last)
    if seen.any():
        after = (
            above
            if observed is None
            else np.where(np.isnan(observed), above, np.maximum(observed - least, 0.0) + SMALL)
        )
        change = np.where(seen, np.log(np.where(seen, last, 1.0)) - np.log(after), 0.0)
        shares = softmax(logits)
        slope = shares * (change - float(shares @ change))
        logits[:] = descend(state, "xi", logits, slope, lr, "adam", weight_decay)
    last[:] = above
    weights = softmax(logits) / above
    return np.asarray(weights / weights.sum())

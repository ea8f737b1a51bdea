"""imtl-l: impartial multi-task learning, its part for losses."""

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
    "imtl-l",
    paper="Liu et al. 2021, ICLR (IMTL)",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    about=About(
        family="losses",
        use="Losses differ in size, in one backward pass.",
        avoid="Losses change fast: the learned factors follow at their own learning rate.",
        maths=r"\nabla \sum_i \left(e^{s_i} L_i - s_i\right)",
        papers=(
            Citation(
                title="Towards Impartial Multi-task Learning",
                authors=(
                    "Liyang Liu",
                    "Yi Li",
                    "Zhanghui Kuang",
                    "Jing-Hao Xue",
                    "Yimin Chen",
                    "Wenming Yang",
                    "Qingmin Liao",
                    "Wayne Zhang",
                ),
                year=2021,
                venue="ICLR",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "In the paper the factors are parameters of the model, at its learning rate; here "
                "they have their own, and move by at most 1 per step."
            ),
        ),
    ),
)
def imtl_l(
    losses: Array,
    state: State,
    *,
    lr: Annotated[float, POSITIVE] = 1e-3,
    optimizer: Optimizer = "sgd",
) -> Array:
    """Every loss is scaled to the same size, by a learned factor.

    The gradient of Σᵢ e^(sᵢ) Lᵢ − sᵢ, s learned: at the optimum every scaled loss e^(sᵢ) Lᵢ is 1
    (equation 8). wᵢ = e^(sᵢ); then sᵢ takes a step of its own. s starts at 0: the first step is
    the sum.

    One step moves s by at most 1, so a weight by a factor of e at most. At a loss of 4e4 plain
    gradient descent would move s by 40 and switch that loss off for good: s returns by lr per
    step only. A weight below 1e-9 that leaves its loss no part in the sum is warned of.

    Args:
        lr: the learning rate of s. In the paper s is one more parameter of the model, at the
            model's learning rate: give yours.
        optimizer: what moves s: "adam" or "sgd".

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> scaled, state = gs.get_strategy("imtl-l", lr=0.1), gs.State()
        >>> for _ in range(400):
        ...     weights = scaled.weights(np.eye(2), losses=[0.5, 4.0], state=state)
        >>> weights.round(3).tolist()
        [2.0, 0.25]
    """
    logs = state.vector("s", 0.0)
    weights = np.exp(logs)
    warn_of_underflow("imtl-l", state, weights, losses, math.ceil(1 / lr))
    logs[:] = descend(state, "s", logs, weights * losses - 1, lr, optimizer, longest=1.0)
    return np.asarray(weights)

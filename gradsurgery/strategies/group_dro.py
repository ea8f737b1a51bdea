"""group-dro: distributionally robust optimization over groups."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    About,
    Citation,
    PerObjective,
    State,
    by_objective,
    homogeneous,
    strategy,
)
from gradsurgery.solvers import softmax
from gradsurgery.types import Array


@strategy(
    "group-dro",
    paper="Sagawa et al. 2020, arXiv:1911.08731",
    scale="convex",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic", "sums-to-one"),
    variants=({"normalize": True},),
    also=("group DRO", "DRO", "distributionally robust optimization", "worst group"),
    about=About(
        family="losses",
        use="Objectives are groups of examples, and the worst group's loss counts.",
        avoid="Losses have different units: the largest number wins.",
        maths=r"d = \sum_i q_i g_i, \qquad q_i \propto q_i\, e^{\eta (L_i + a_i)}",
        papers=(
            Citation(
                title=(
                    "Distributionally Robust Neural Networks for Group Shifts: On the Importance "
                    "of Regularization for Worst-Case Generalization"
                ),
                authors=("Shiori Sagawa", "Pang Wei Koh", "Tatsunori Hashimoto", "Percy Liang"),
                year=2020,
                arxiv="1911.08731",
                source=(
                    "READMEs of github.com/kohpangwei/group_DRO and, for the year, "
                    "facebookresearch/DomainBed"
                ),
            ),
        ),
        differs=(
            (
                "The paper draws one group per step; here, as in the official code, all that are "
                "present take part."
            ),
            (
                "In the official code an absent group has a loss of zero, and an adjustment is "
                "ignored where another group has none."
            ),
        ),
    ),
)
def group_dro(
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    step_size: Annotated[float, NON_NEGATIVE] = 0.01,
    adjustment: Annotated[Any, PerObjective(NON_NEGATIVE)] = 0.0,
    normalize: bool = False,
) -> Array:
    """Weights that grow exponentially with each loss, so that the largest loss comes to decide.

    q ← q exp(η(L + a)), divided by its sum, from q = 1/n; d = Σ qᵢgᵢ with the new q (Algorithm 1).

    An objective is a group of examples, its loss their mean. The paper draws one group per step;
    here all that are present take part, as in the official code. One that is absent has a loss of
    zero there and so keeps its share beside a loss of zero; here the weights of those present sum
    to one. η is absolute: losses of 1e3 need a smaller one, or `normalize`. In the official code an
    adjustment of one group is ignored where another has none; here each counts.

    Args:
        step_size: η of q.
        adjustment: a, such as C/√nᵢ for a group of nᵢ examples: one number for all, a dict by name,
            or numbers in the order of the losses.
        normalize: whether L + a is divided by its sum first.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> robust, state = gs.get_strategy("group-dro", step_size=1.0), gs.State()
        >>> losses = [1.0, 2.0]
        >>> robust.weights(np.eye(2), losses=losses, state=state).round(3).tolist()
        [0.269, 0.731]
        >>> robust.weights(np.eye(2), losses=losses, state=state).round(3).tolist()
        [0.119, 0.881]
    """
    gains = losses + by_objective("adjustment", adjustment, objectives)
    if normalize:
        total = float(gains.sum())
        gains = gains / total if total else np.zeros(len(gains))
    logs = state.vector("log weights", 0.0)
    logs += step_size * gains
    return softmax(logs)

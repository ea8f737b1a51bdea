"""agm: adaptive gradient modulation."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
    About,
    Citation,
    State,
    homogeneous,
    modality_score,
    strategy,
)
from gradsurgery.types import Array

LIMIT = 50.0  # of a difference of cross-entropies, so that its exponential stays a number


@strategy(
    "agm",
    paper="Li et al. 2023, ICCV (AGM)",
    scale="own",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("adaptive gradient modulation",),
    about=About(
        family="modalities",
        use=(
            "One modality learns faster than the others, and each one's own cross-entropy is at "
            "hand."
        ),
        avoid=(
            "There is no score per modality, or the losses conflict: the sum's direction is kept."
        ),
        maths=(
            r"d = e^{\alpha(\tau - r)} \sum_i g_i, \qquad r = "
            r"\exp\left(\overline{s}_{\text{others}} - s_{\text{own}}\right)"
        ),
        papers=(
            Citation(
                title="Boosting Multi-modal Model Performance with Adaptive Gradient Modulation",
                authors=(
                    "Hong Li",
                    "Xingyu Li",
                    "Pengbo Hu",
                    "Yinuo Lei",
                    "Chunxiao Li",
                    "Yi Zhou",
                ),
                year=2023,
                venue="ICCV",
                arxiv="2308.07686",
                source="README of github.com/lihong2303/AGM_ICCV2023",
            ),
        ),
    ),
)
def agm(
    group: str,
    objectives: tuple[str, ...],
    state: State,
    scores: Mapping[str, float] | None = None,
    *,
    alpha: Annotated[float, POSITIVE] = 1.0,
    modality: Any = None,
) -> Array:
    """The sum, scaled by how far a modality is ahead of the others, beside its running mean.

    d = exp(α(τ − r)) Σ gᵢ, r = exp(mean(s_others) − s_own), τ the running mean of r over the steps
    (equations 7 to 9).

    s is the cross-entropy of the modality alone, given as `surgery.backward(losses,
    scores={modality: s})`. A modality ahead of the others has r > 1. In the first step r is its
    own mean and nothing changes. Groups as for `ogm-ge`.

    Args:
        alpha: α.
        modality: {group: modality}, where their names differ.

    Raises:
        InputError: when the scores are missing, or do not name a modality that was asked for.

    Example:
        >>> import gradsurgery as gs
        >>> agm = gs.get_strategy("agm", modality={"all": "audio"})
        >>> state, even = gs.State(), {"audio": 1.0, "visual": 1.0}
        >>> agm.weights([[1.0]], scores=even, state=state).tolist()
        [1.0]
        >>> ahead = {"audio": 0.5, "visual": 1.0}
        >>> agm.weights([[1.0]], scores=ahead, state=state).round(3).tolist()
        [0.723]
    """
    own, others = modality_score("agm", scores, group, modality, positive=False)
    if own is None:
        return np.ones(len(objectives))
    ratio = float(np.exp(np.clip(np.mean(others) - own, -LIMIT, LIMIT)))
    count = state.scalar("steps", 0.0) + 1
    mean = state.scalar("mean", 0.0)
    mean += (ratio - mean) / count
    state["steps"], state["mean"] = count, mean
    return np.full(len(objectives), float(np.exp(min(alpha * (mean - ratio), LIMIT))))

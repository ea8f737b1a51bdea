"""ogm-ge: on-the-fly gradient modulation with generalisation enhancement."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract import (
    POSITIVE,
    About,
    Citation,
    homogeneous,
    modality_score,
    strategy,
    when,
)
from gradsurgery.types import Array


@strategy(
    "ogm-ge",
    paper="Peng et al. 2022, arXiv:2203.15332",
    scale="own",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        when("noise is off", lambda options: not options["noise"], "deterministic"),
    ),
    inputs=lambda options: (
        {"scores", "group", "objectives"}
        | ({"rows", "splits", "generator"} if options["noise"] else set())
    ),
    variants=({"noise": False},),
    also=("on-the-fly gradient modulation",),
    about=About(
        family="modalities",
        use="One modality dominates a joint loss, and each one's score is at hand.",
        avoid="Modalities have losses of their own: `mmpareto` and `dgl` use those.",
        maths=(
            r"d = k \sum_i g_i + \text{noise}, \qquad k = \begin{cases} 1 - \tanh(\alpha \rho) & "
            r"\rho > 1 \\ 1 & \text{else} \end{cases} \quad \rho = "
            r"\frac{s_{\text{own}}}{\overline{s}_{\text{others}}}"
        ),
        papers=(
            Citation(
                title="Balanced Multimodal Learning via On-the-fly Gradient Modulation",
                authors=("Xiaokang Peng", "Yake Wei", "Andong Deng", "Dong Wang", "Di Hu"),
                year=2022,
                venue="CVPR",
                arxiv="2203.15332",
                source="README of github.com/GeWu-Lab/OGM-GE_CVPR2022",
            ),
        ),
        related={
            "OGM": "it is ogm-ge with noise=False.",
        },
    ),
)
def ogm_ge(
    group: str,
    objectives: tuple[str, ...],
    scores: Mapping[str, float] | None = None,
    rows: Tensor | None = None,
    splits: tuple[int, ...] | None = None,
    generator: torch.Generator | None = None,
    *,
    alpha: Annotated[float, POSITIVE] = 0.3,
    noise: bool = True,
    modality: Any = None,
) -> Array | Tensor:
    """The encoder of a dominant modality is slowed down, and noise is added.

    d = k Σ gᵢ + noise, k = 1 − tanh(αρ) where ρ = s_own/mean(s_others) > 1, else 1 (equations 8 to
    10).

    s is what the user gives as `surgery.backward(losses, scores={modality: s})`: the sum over the
    batch of the true class's probability from that modality alone. The noise is normal with the
    standard deviation of each parameter tensor's own modulated gradient (generalisation
    enhancement, equation 11). Give the encoders as groups and count them with one loss too:
    `Surgery("ogm-ge", {"audio": model.audio, "visual": model.visual}, min_objectives=1)`. A group
    without a score is left alone.

    Args:
        alpha: α; 0.1 to 0.8 in the paper.
        noise: whether to add it.
        modality: {group: modality}, where their names differ.

    Raises:
        InputError: when the scores are missing, not positive, or do not name a modality that was
            asked for.

    Example:
        >>> import gradsurgery as gs
        >>> own = {"all": "audio"}
        >>> slowed = gs.get_strategy("ogm-ge", noise=False, modality=own)
        >>> scores = {"audio": 3.0, "visual": 1.0}
        >>> slowed.weights([[1.0]], scores=scores).round(3).tolist()
        [0.284]
    """
    factor = 1.0
    own, others = modality_score("ogm-ge", scores, group, modality)
    if own is not None:
        ratio = own / float(np.mean(others))
        factor = 1 - float(np.tanh(alpha * ratio)) if ratio > 1 else 1.0
    if rows is None or splits is None:
        return np.full(len(objectives), factor)
    direction = rows.sum(0) * factor
    if own is not None:
        draws = torch.randn(
            direction.shape, generator=generator, dtype=torch.float32, device=direction.device
        ).to(direction.dtype)
        for piece, drawn in zip(
            torch.split(direction, list(splits)), torch.split(draws, list(splits)), strict=True
        ):
            if piece.numel() > 1:
                piece.add_(drawn * piece.std())
    return direction

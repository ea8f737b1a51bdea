"""dgl: disentangled gradient learning."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import POSITIVE, About, Citation, ObjectiveName, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "dgl",
    paper="Wei et al. 2025 (Disentangled Gradient Learning)",
    scale="own",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=({"joint": "0"}, {"joint": "1", "alpha": 0.5}),
    also=("disentangled gradient learning", "GDL"),
    about=About(
        family="modalities",
        use=(
            "Encoders of a multimodal model have losses of their own, and the joint loss holds "
            "them back."
        ),
        avoid=(
            "Encoders have to learn how modalities interact: the joint gradient does not reach "
            "them."
        ),
        maths=r"d = \alpha \sum_{i \ne \text{joint}} g_i",
        papers=(
            Citation(
                title="Boosting Multimodal Learning via Disentangled Gradient Learning",
                year=2025,
                venue="ICCV",
                arxiv="2507.10213",
                source="README of github.com/shicaiwei123/ICCV2025-GDL, which has no authors",
            ),
        ),
    ),
)
def dgl(
    objectives: tuple[str, ...], *, joint: ObjectiveName, alpha: Annotated[float, POSITIVE] = 1.0
) -> Array:
    """Encoders follow their unimodal losses only, the fusion module follows the joint one only.

    d = α Σ gᵢ over the objectives other than the joint one; where only the joint one arrives, its
    gradient.

    An encoder is reached by its unimodal loss and by the joint loss, whose gradient is dropped.
    The fusion module is reached by the joint loss alone and keeps it, as every unimodal head keeps
    its own.

    Args:
        joint: the name of the joint (fused) objective.
        alpha: α, the weight of the unimodal gradients on an encoder.

    Example:
        >>> from gradsurgery import get_strategy
        >>> dgl = get_strategy("dgl", joint="0")
        >>> dgl.weights([[1.0, 0.0], [0.0, 1.0]]).tolist()
        [0.0, 1.0]
    """
    if set(objectives) == {joint}:
        return np.ones(1)
    return np.array(
        [0.0 if name == joint else alpha if joint in objectives else 1.0 for name in objectives]
    )

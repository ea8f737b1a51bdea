"""metabalance: auxiliary gradients brought nearer to the main one in length, tensor by tensor."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import (
    SHARE,
    About,
    Citation,
    ObjectiveName,
    Range,
    State,
    equivariant_when_named,
    homogeneous,
    strategy,
    when,
)
from gradsurgery.types import Array


@strategy(
    "metabalance",
    paper="He et al. 2022, arXiv:2203.06801",
    scale="sum",
    claims=(
        homogeneous(1),
        "deterministic",
        equivariant_when_named("main", "the main objective"),
        when("relax = 0", lambda options: options["relax"] == 0, "permutation-equivariant"),
        when("relax = 1", lambda options: options["relax"] == 1, "scale-invariant"),
    ),
    variants=({"main": "0"}, {"main": "0", "relax": 1.0}, {"relax": 0.0}),
    about=About(
        family="auxiliary",
        use="Auxiliary gradients are far longer or shorter than the main one, layer by layer.",
        avoid="Directions conflict: only lengths are changed.",
        maths=(
            r"d = g_1 + \sum_j \left(r\, \frac{m_1}{m_j} + 1 - r\right) g_j \quad\text{per "
            r"parameter tensor}"
        ),
        papers=(
            Citation(
                title=(
                    "MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient "
                    "Magnitudes of Auxiliary Tasks"
                ),
                authors=(
                    "Yun He",
                    "Xue Feng",
                    "Cheng Cheng",
                    "Geng Ji",
                    "Yunsong Guo",
                    "James Caverlee",
                ),
                year=2022,
                venue="The Web Conference",
                arxiv="2203.06801",
                source="README of github.com/facebookresearch/MetaBalance",
            ),
        ),
        differs=(
            (
                "The running lengths of the official code start at zero; here each is divided by "
                "1 − βᵗ, its own step t."
            ),
        ),
    ),
)
def metabalance(
    block_grams: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    main: ObjectiveName | None = None,
    relax: Annotated[float, SHARE] = 0.7,
    beta: Annotated[float, Range(0, 1, high_open=True)] = 0.9,
) -> Array:
    """The sum of the gradients, the auxiliary ones nearer to the main one in length per tensor.

    d = g₁ + Σⱼ (r m₁/mⱼ + 1 − r) gⱼ in each parameter tensor, over the auxiliary objectives j.
    There mᵢ ← βmᵢ + (1 − β)‖gᵢ‖ follows the length of the gradient.

    This is the official code, which lengthens and shortens alike; m starts at zero there. Here
    each mᵢ is divided by 1 − βᵗ in its objective's own step t. That cancels where all objectives
    were there from the first step, and one that comes later is not taken for a short one. On a
    tensor where the main gradient was always zero the auxiliary ones keep their share 1 − r. On a
    group that the named main objective does not reach d is the sum.

    Args:
        main: the main objective's name; None is the first.
        relax: r, from 0 (lengths stay) to 1 (lengths are the main one's).
        beta: β of the running lengths.

    Example:
        >>> import gradsurgery as gs
        >>> balance, state = gs.get_strategy("metabalance"), gs.State()
        >>> gram = [[1.0, 0.0], [0.0, 4.0]]
        >>> balance.weights(gram, state=state).round(3).tolist()
        [[1.0, 0.65]]
    """
    n = len(objectives)
    if main is not None and main not in objectives:
        return np.ones((len(block_grams), n))
    first = 0 if main is None else objectives.index(main)
    length, seen = state.blocks("length"), state.vector("steps", 0.0)
    seen += 1
    length *= beta
    length += (1 - beta) * np.sqrt(np.diagonal(block_grams, axis1=1, axis2=2))
    corrected = length / (1 - beta**seen)
    ratio = np.ones_like(corrected)
    np.divide(corrected[:, [first]], corrected, out=ratio, where=corrected > 0)
    ratio[:, first] = 1.0
    return np.asarray(relax * ratio + (1 - relax))

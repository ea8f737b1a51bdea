"""aux-cosine: auxiliary losses weighted by the similarity of gradients."""

import numpy as np

from gradsurgery.contract import (
    About,
    Citation,
    ObjectiveName,
    equivariant_when_named,
    homogeneous,
    strategy,
)
from gradsurgery.solvers import DEFAULT_EPS, split
from gradsurgery.types import Array


@strategy(
    "aux-cosine",
    paper="Du et al. 2018, arXiv:1812.02224",
    scale="own",
    claims=(
        homogeneous(1),
        "deterministic",
        equivariant_when_named("main", "the main objective"),
    ),
    variants=({"main": "0"}, {"weighted": False}, {"main": "0", "weighted": False}),
    also=("gradient cosine similarity", "GCS", "GradCosine"),
    about=About(
        family="auxiliary",
        use=(
            "There is one main objective, and auxiliary ones may help but must not get in its way."
        ),
        avoid=(
            "All objectives count: those that conflict with the main one are left out and may rise."
        ),
        maths=r"d = g_1 + \sum_j \max(0, \cos(g_1, g_j))\, g_j",
        papers=(
            Citation(
                title="Adapting Auxiliary Losses Using Gradient Similarity",
                authors=(
                    "Yunshu Du",
                    "Wojciech M. Czarnecki",
                    "Siddhant M. Jayakumar",
                    "Mehrdad Farajtabar",
                    "Razvan Pascanu",
                    "Balaji Lakshminarayanan",
                ),
                year=2018,
                arxiv="1812.02224",
                source="tomesphere.com/paper/1812.02224, a copy of the arXiv page",
            ),
        ),
    ),
)
def aux_cosine(
    gram: Array,
    objectives: tuple[str, ...],
    eps: float | None = None,
    *,
    main: ObjectiveName | None = None,
    weighted: bool = True,
) -> Array:
    """The main gradient, and each auxiliary one by its cosine with it where that is positive.

    d = g₁ + Σⱼ max(0, cos(g₁, gⱼ)) gⱼ over the auxiliary objectives j; unweighted, gⱼ counts in
    full where cos(g₁, gⱼ) > 0 and not at all elsewhere.

    d never conflicts with the main gradient, so that for small steps the main loss converges as it
    would alone. An auxiliary objective that conflicts is left out, and its loss may rise. On a
    group that the named main objective does not reach d is the sum.

    Args:
        main: the main objective's name; None is the first.
        weighted: whether an auxiliary gradient is multiplied by its cosine.

    Example:
        >>> from gradsurgery import get_strategy
        >>> gram = [[1.0, 1.0, -1.0], [1.0, 4.0, 0.0], [-1.0, 0.0, 9.0]]
        >>> get_strategy("aux-cosine").weights(gram).tolist()
        [1.0, 0.5, 0.0]
        >>> get_strategy("aux-cosine", weighted=False).weights(gram).tolist()
        [1.0, 1.0, 0.0]
    """
    if main is not None and main not in objectives:
        return np.ones(len(objectives))
    first = 0 if main is None else objectives.index(main)
    cosines, _ = split(gram)
    along = np.maximum(cosines[first], 0.0)
    # a cosine of nothing but rounding is zero, which the unweighted form would count in full
    weights = along if weighted else np.where(along > (eps or DEFAULT_EPS), 1.0, 0.0)
    weights[first] = 1.0
    return np.asarray(weights)

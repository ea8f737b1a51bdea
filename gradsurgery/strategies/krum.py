"""krum: Krum and Multi-Krum."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import About, Citation, Range, homogeneous, strategy
from gradsurgery.errors import InputError
from gradsurgery.types import Array


@strategy(
    "krum",
    paper="Blanchard et al. 2017, arXiv:1703.02757",
    scale="mean",
    claims=(homogeneous(1), "deterministic", "sums-to-one"),
    variants=({"byzantine": 0}, {"byzantine": 2, "selected": 3}),
    about=About(
        family="coordinates",
        use="Gradients come from several sources of one objective, and some may be wrong.",
        avoid="Objectives differ: all but the chosen ones are ignored.",
        maths=(
            r"d = \frac1m \sum_{i \in S} g_i, \qquad S \text{ the } m \text{ rows of least } "
            r"\sum_{j \in N(i)} \lVert g_i - g_j\rVert^2"
        ),
        papers=(
            Citation(
                title="Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
                authors=(
                    "Peva Blanchard",
                    "El Mahdi El Mhamdi",
                    "Rachid Guerraoui",
                    "Julien Stainer",
                ),
                year=2017,
                venue="NIPS",
                arxiv="1703.02757",
                source="papers.nips.cc, 2017",
            ),
        ),
        related={
            "Multi-Krum": "it is krum with selected= above 1.",
        },
    ),
)
def krum(
    gram: Array, *, byzantine: Annotated[int, Range(0)] = 1, selected: Annotated[int, Range(1)] = 1
) -> Array:
    """The mean of the gradients that are nearest to their neighbours.

    Of each gradient the squared distances to its n − f − 2 nearest neighbours are summed; the
    `selected` gradients with the least sums are averaged (section 4).

    f gradients may be anything without steering d. Of gradients with the same sum the first is
    chosen, as in the paper. With n = f + 3 the two that are nearest to each other always have the
    same, so that d may depend on the order.

    Args:
        byzantine: f, how many gradients may be wrong.
        selected: how many are averaged (Multi-Krum); 1 is Krum.

    Raises:
        InputError: for fewer than f + 3 objectives, or fewer than `selected`.

    Example:
        >>> from gradsurgery import get_strategy
        >>> krum = get_strategy("krum", byzantine=0)
        >>> gram = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0]]
        >>> krum.weights(gram).tolist()
        [1.0, 0.0, 0.0]
    """
    n = len(gram)
    if n < max(byzantine + 3, selected):
        needed = (
            f"byzantine + 3 = {byzantine + 3}" if n < byzantine + 3 else f"selected = {selected}"
        )
        raise InputError(f"strategy 'krum' needs {needed} objectives or more; got {n}.")
    squares = np.diagonal(gram)
    # a product of matrices may differ from its transpose in the last bit, which would break ties
    distances = np.maximum(squares + squares[:, None] - (gram + gram.T), 0.0)
    np.fill_diagonal(distances, np.inf)  # a gradient is not its own neighbour
    scores = np.sort(distances, axis=1)[:, : n - byzantine - 2].sum(1)
    weights = np.zeros(n)
    weights[np.argsort(scores, kind="stable")[:selected]] = 1 / selected
    return weights

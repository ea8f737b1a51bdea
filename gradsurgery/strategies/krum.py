"""krum: the mean of the gradients that lie nearest to their neighbours."""

from typing import Annotated

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.registry import Range, homogeneous, strategy
from gradsurgery.solvers.solution import Array

TIE = 1e-10  # relative difference between scores below which gradients are chosen or left together


@strategy(
    "krum",
    paper="Blanchard et al. 2017, arXiv:1703.02757",
    scale="mean",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic", "sums-to-one"),
    variants=({"byzantine": 0}, {"byzantine": 2, "selected": 3}),
)
def krum(gram: Array, *, byzantine: Annotated[int, Range(0)] = 1, selected: Annotated[int, Range(1)] = 1) -> Array:
    """The mean of the `selected` gradients whose n − f − 2 nearest neighbours have the least sum of squared distances (section 4).

    f gradients may be anything without steering d. Scores that are equal up to rounding share what they would be chosen for.

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
        [0.5, 0.5, 0.0]
    """
    n = len(gram)
    if n < max(byzantine + 3, selected):
        needed = f"byzantine + 3 = {byzantine + 3}" if n < byzantine + 3 else f"selected = {selected}"
        raise InputError(f"strategy 'krum' needs {needed} objectives or more; got {n}.")
    squares = np.diagonal(gram)
    distances = np.maximum(squares + squares[:, None] - 2 * gram, 0.0)
    np.fill_diagonal(distances, np.inf)  # a gradient is not its own neighbour
    scores = np.sort(distances, axis=1)[:, : n - byzantine - 2].sum(1)
    limit = np.sort(scores)[selected - 1]
    slack = TIE * float(squares.max())
    surely, tied = scores < limit - slack, np.abs(scores - limit) <= slack
    weights = surely.astype(np.float64)
    weights[tied] = (selected - surely.sum()) / tied.sum()
    return np.asarray(weights / selected)

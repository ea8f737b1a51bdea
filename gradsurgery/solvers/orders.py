"""Random orders in which each objective is projected against the others."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def meetings(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """For each objective a random order of the others, as columns [n − 1, n].

    Column i holds the objectives other than i in an order of its own, drawn uniformly.
    """
    return rng.permuted(_others(n), axis=1).T


@lru_cache(maxsize=128)
def _others(n: int) -> NDArray[np.intp]:
    """[n, n − 1]: row i holds the objectives other than i in order."""
    return np.array([[j for j in range(n) if j != i] for i in range(n)], dtype=np.intp).reshape(
        n, n - 1
    )

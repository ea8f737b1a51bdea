"""median-length: every gradient is brought to the median length."""

import numpy as np

import gradsurgery as gs


@gs.strategy(
    "median-length",
    scale="sum",
    claims=(gs.homogeneous(1), "permutation-equivariant", "deterministic"),
)
def median_length(gram):
    """The sum of the gradients, each brought to their median length.

    d = m Σᵢ gᵢ/nᵢ, with nᵢ = ‖gᵢ‖ and m their median. A gradient of zero stays zero.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("median-length").weights([[1.0, 0.0], [0.0, 9.0]]).round(3).tolist()
        [2.0, 0.667]
    """
    norms = np.sqrt(np.diagonal(gram))
    return np.divide(np.median(norms), norms, out=np.zeros(len(norms)), where=norms > 0)

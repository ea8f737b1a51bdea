"""gls: geometric loss strategy."""

import numpy as np

from gradsurgery.contract import homogeneous, positive_losses, strategy
from gradsurgery.types import Array


@strategy(
    "gls",
    paper="Chennupati et al. 2019, arXiv:1904.08492",
    scale="mean",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("geometric loss strategy", "geometric mean"),
)
def gls(losses: Array, objectives: tuple[str, ...]) -> Array:
    """The gradient of the geometric mean of the losses.

    The gradient of (Π Lᵢ)^(1/n): wᵢ = (Π L)^(1/n) / (n Lᵢ) (equation 3).

    Raises:
        InputError: when a loss is not positive; the message names it.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> gls = gs.get_strategy("gls")
        >>> gls.weights(np.eye(2), losses=[1.0, 4.0]).round(9).tolist()
        [1.0, 0.25]
    """
    logs = np.log(positive_losses("strategy 'gls'", losses, objectives))
    return np.asarray(np.exp(logs.mean() - logs) / len(losses))

"""gls: geometric loss strategy."""

import numpy as np

from gradsurgery.contract import About, Citation, homogeneous, positive_losses, strategy
from gradsurgery.types import Array


@strategy(
    "gls",
    paper="Chennupati et al. 2019, arXiv:1904.08492",
    scale="mean",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    also=("geometric loss strategy", "geometric mean", "GeoMean"),
    about=About(
        family="scalarisations",
        use="Losses are positive and differ in size: no weights are needed.",
        avoid="A loss can reach zero: it then takes all the weight.",
        maths=(
            r"\nabla \left(\prod_i L_i\right)^{1/n}, \qquad w_i = \frac{\left(\prod_j "
            r"L_j\right)^{1/n}}{n L_i}"
        ),
        papers=(
            Citation(
                title=(
                    "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for "
                    "Multi-Task Learning"
                ),
                authors=(
                    "Sumanth Chennupati",
                    "Ganesh Sistu",
                    "Senthil Yogamani",
                    "Samir A Rawashdeh",
                ),
                year=2019,
                arxiv="1904.08492",
                source="groundai.com, a copy of the paper",
            ),
        ),
        related={
            "SI": (
                "scale-invariant linear scalarization is the sum of the log losses; gls has its "
                "direction, with another length."
            ),
            "scale-invariant": (
                "scale-invariant linear scalarization is the sum of the log losses; gls has its "
                "direction, with another length."
            ),
            "scale-invariant linear scalarization": (
                "it is the sum of the log losses; gls has its direction, with another length."
            ),
            "scaleinvls": (
                "it is the sum of the log losses; gls has its direction, with another length."
            ),
        },
    ),
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

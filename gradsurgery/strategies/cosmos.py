"""cosmos: conditioned one-shot multi-objective search."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import NON_NEGATIVE, About, Citation, by_objective, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "cosmos",
    paper="Ruchte & Grabocka 2021, arXiv:2103.13392",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=({"preference": {str(i): 1.0 + i for i in range(64)}, "lam": 0.1},),
    about=About(
        family="scalarisations",
        use="A trade-off between losses is wanted, given as a proportion, in one backward pass.",
        avoid="No loss may rise on purpose: weights can be negative.",
        maths=r"\nabla \left(\sum_i r_i L_i - \lambda \cos(r, L)\right)",
        papers=(
            Citation(
                title="Scalable Pareto Front Approximation for Deep Multi-Objective Learning",
                authors=("Michael Ruchte", "Josif Grabocka"),
                year=2021,
                venue="ICDM",
                arxiv="2103.13392",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The paper also gives the preference to the model as an input and draws another "
                "one per batch; that is left to the user."
            ),
        ),
    ),
)
def cosmos(
    losses: Array,
    objectives: tuple[str, ...],
    *,
    preference: Any = None,
    lam: Annotated[float, NON_NEGATIVE] = 2.0,
) -> Array:
    """A weighted sum of the losses, less their cosine with the preferred proportion.

    The gradient of Σᵢ rᵢLᵢ − λ cos(r, L): wᵢ = rᵢ − λ(rᵢ/(‖r‖‖L‖) − ⟨r, L⟩Lᵢ/(‖r‖‖L‖³))
    (equation 6).

    Weights may be negative: a loss that is too small for its preference is allowed to grow. The
    paper also gives r to the model as an input and draws another one for every batch; that is left
    to the user.

    Args:
        preference: r, a dict from name to number, or numbers in the order of the losses when those
            are a sequence; 1/n by default.
        lam: λ; 0.01 to 8 in the paper, by data set.

    Raises:
        InputError: when an objective has no number, or one is not finite.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> cosmos = gs.get_strategy("cosmos", lam=2.0)
        >>> cosmos.weights(np.eye(2), losses=[3.0, 1.0]).round(3).tolist()
        [0.589, 0.232]
    """
    n = len(losses)
    wanted = (
        np.full(n, 1 / n)
        if preference is None
        else by_objective("preference", preference, objectives)
    )
    lengths = float(np.linalg.norm(wanted)) * float(np.linalg.norm(losses))
    if lengths == 0:
        return wanted
    pull = wanted / lengths - float(wanted @ losses) / lengths * losses / float(losses @ losses)
    return np.asarray(wanted - lam * pull)

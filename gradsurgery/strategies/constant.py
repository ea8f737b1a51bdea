"""constant: fixed weights of the losses."""

from typing import Any

from gradsurgery.contract import About, by_objective, homogeneous, strategy
from gradsurgery.types import Array


@strategy(
    "constant",
    paper="weighted sum of losses",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "deterministic", "permutation-equivariant"),
    variants=({"preference": {str(i): 1.0 + i for i in range(64)}},),
    also=("weighted sum", "fixed weights"),
    about=About(
        family="baselines",
        use="Weights are known, or searched for on validation figures.",
        avoid="Weights would have to change as training goes on.",
        maths=r"d = \sum_i p_i\, g_i",
    ),
)
def constant(objectives: tuple[str, ...], *, preference: Any = None) -> Array:
    """The sum of the gradients with a fixed weight per loss.

    d = Σᵢ pᵢ gᵢ with given weights p.

    Args:
        preference: p, a dict from name to number, or numbers in the order of the losses when those
            are a sequence. None is one for each, which is `sum`.

    Raises:
        InputError: when an objective has no number, or one is not finite.

    Example:
        >>> from gradsurgery import get_strategy
        >>> constant = get_strategy("constant", preference=[1.0, 0.5])
        >>> constant.weights([[1.0, 0.0], [0.0, 4.0]]).tolist()
        [1.0, 0.5]
    """
    return by_objective(
        "preference", preference, objectives, None if preference is not None else 1.0
    )

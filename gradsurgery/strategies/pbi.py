"""pbi: penalty-based boundary intersection."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import NON_NEGATIVE, About, Citation, by_objective, homogeneous, strategy
from gradsurgery.errors import InputError
from gradsurgery.types import Array

ROUNDING = 2.0**-23  # of losses in float32


@strategy(
    "pbi",
    paper="Zhang & Li 2007, IEEE TEVC (MOEA/D)",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=({"preference": {str(i): 1.0 + i for i in range(64)}, "theta": 1.0},),
    also=("MOEA/D", "penalty-based boundary intersection"),
    about=About(
        family="scalarisations",
        use="A preferred direction of the losses is given, with a penalty on leaving it.",
        avoid="Losses have different units, or no loss may rise: weights can be negative.",
        maths=(
            r"\nabla (d_1 + \theta d_2), \qquad d_1 = \langle L - z, \hat w\rangle, \quad d_2 = "
            r"\lVert L - z - d_1 \hat w\rVert"
        ),
        papers=(
            Citation(
                title="MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
                authors=("Q. Zhang", "H. Li"),
                year=2007,
                venue="IEEE Transactions on Evolutionary Computation",
                source="docs/zreferences.rst of github.com/moead-framework/framework",
                journal=True,
            ),
        ),
    ),
)
def pbi(
    losses: Array,
    objectives: tuple[str, ...],
    *,
    preference: Any = None,
    theta: Annotated[float, NON_NEGATIVE] = 5.0,
    ideal: Any = 0.0,
) -> Array:
    """Progress along a preferred direction of the losses, with a penalty on the distance from it.

    The gradient of d₁ + θd₂, d₁ = ⟨L − z, ŵ⟩ and d₂ = ‖(L − z) − d₁ŵ‖: ŵ + θ((L − z) − d₁ŵ)/d₂
    (section III.A).

    Where the losses lie on the preferred direction (d₂ is only the rounding of losses in float32)
    the second term, which has no gradient there, is left out.

    Args:
        preference: w, a dict from name to number, or numbers in the order of the losses when those
            are a sequence; 1 by default.
        theta: θ; 5 in the paper.
        ideal: z: a number, or by objective as above.

    Raises:
        InputError: when an objective has no number, or the preference is zero.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> pbi = gs.get_strategy("pbi", theta=1.0)
        >>> pbi.weights(np.eye(2), losses=[1.0, 3.0]).round(3).tolist()
        [0.0, 1.414]
    """
    n = len(losses)
    wanted = (
        np.ones(n) if preference is None else by_objective("preference", preference, objectives)
    )
    length = float(np.linalg.norm(wanted))
    if length == 0:
        raise InputError(
            "strategy 'pbi': the preference is zero; give at least one positive number."
        )
    unit = wanted / length
    point = by_objective("ideal", ideal, objectives)
    shifted = losses - point
    across = shifted - float(shifted @ unit) * unit
    distance = float(np.linalg.norm(across))
    size = float(np.linalg.norm(losses)) + float(np.linalg.norm(point))
    return np.asarray(unit if distance <= ROUNDING * size else unit + theta * across / distance)

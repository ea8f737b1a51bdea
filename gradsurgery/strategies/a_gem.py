"""a-gem: averaged gradient episodic memory."""

import numpy as np

from gradsurgery.contract import About, Citation, ObjectiveName, homogeneous, strategy, when
from gradsurgery.solvers import without_conflict
from gradsurgery.types import Array


@strategy(
    "a-gem",
    paper="Chaudhry et al. 2019, arXiv:1812.00420",
    scale="sum",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        when("n <= 2", lambda n: n <= 2, "non-conflicting"),
    ),
    variants=({"objective": "0"},),
    also=("averaged GEM", "averaged gradient episodic memory"),
    about=About(
        family="auxiliary",
        use=(
            "One loss, such as that on a memory or on retained data, must not rise to first order "
            "while the others are trained."
        ),
        avoid=(
            "The named objective should itself improve: its gradient is no part of the direction. "
            "`Surgery(protect=NAME)` adds it and works over any strategy."
        ),
        maths=(
            r"d = g - \frac{\min(0, \langle g, r\rangle)}{\lVert r\rVert^2}\, r, \qquad g = "
            r"\sum_{i \ne r} g_i"
        ),
        papers=(
            Citation(
                title="Efficient Lifelong Learning with A-GEM",
                authors=(
                    "Arslan Chaudhry",
                    "Marc'Aurelio Ranzato",
                    "Marcus Rohrbach",
                    "Mohamed Elhoseiny",
                ),
                year=2019,
                venue="ICLR",
                arxiv="1812.00420",
                source="README of github.com/facebookresearch/agem",
            ),
        ),
        related={
            "SafeGrad": (
                "it projects the user task's gradient off the alignment gradient where they "
                "conflict (arXiv:2508.07172), which is the projection of a-gem."
            ),
            "GRU": (
                "gradient rectified unlearning projects the gradient of unlearning off that of "
                "retention where they conflict (arXiv:2503.09117): objective= the retained loss."
            ),
        },
    ),
)
def a_gem(gram: Array, objectives: tuple[str, ...], *, objective: ObjectiveName) -> Array:
    """The sum of the other gradients, projected so that it does not conflict with the named one.

    d = g − min(0, ⟨g, r⟩)/‖r‖² · r, with r the gradient of the named objective and g the sum of
    all others (equation 11).

    In continual learning r is the gradient of the loss on the memory. d never conflicts with it,
    and does not follow it either. On a group that it does not reach d is the sum.
    `Surgery(protect=NAME)` does the same over any other strategy, with r among the gradients.

    Args:
        objective: the name of the objective that d does not conflict with.

    Example:
        >>> from gradsurgery import get_strategy
        >>> a_gem = get_strategy("a-gem", objective="0")
        >>> a_gem.weights([[1.0, -2.0], [-2.0, 9.0]]).tolist()
        [2.0, 1.0]
    """
    weights = np.array([0.0 if name == objective else 1.0 for name in objectives])
    return (
        without_conflict(weights, gram, objectives.index(objective))
        if objective in objectives
        else weights
    )

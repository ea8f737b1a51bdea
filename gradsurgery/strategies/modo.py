"""modo: multi-objective gradients with double sampling."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import NON_NEGATIVE, POSITIVE, About, Citation, State, strategy
from gradsurgery.errors import InputError
from gradsurgery.solvers import project_simplex
from gradsurgery.types import Array


@strategy(
    "modo",
    paper="Chen et al. 2023, arXiv:2305.20057",
    scale="convex",
    claims=("permutation-equivariant", "deterministic", "sums-to-one"),
    also=("multi-objective gradient with double sampling",),
    about=About(
        family="min-norm",
        use=(
            "Min-norm weights without the bias of one batch, where three independent batches per "
            "step can be paid for."
        ),
        avoid="Gradients' sizes are unknown: its step size is absolute.",
        maths=(
            r"d = J_3^\top \lambda, \qquad \lambda \gets \Pi_\Delta\left(\lambda - \gamma (J_1 "
            r"J_2^\top \lambda + \rho \lambda)\right)"
        ),
        papers=(
            Citation(
                title=(
                    "Three-Way Trade-Off in Multi-Objective Learning: Optimization, "
                    "Generalization and Conflict-Avoidance"
                ),
                authors=("Lisha Chen", "Heshan Devaka Fernando", "Yiming Ying", "Tianyi Chen"),
                year=2023,
                venue="NeurIPS",
                arxiv="2305.20057",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
    ),
)
def modo(
    cross: Array,
    state: State,
    *,
    gamma: Annotated[float, POSITIVE] = 1e-3,
    rho: Annotated[float, NON_NEGATIVE] = 0.1,
) -> Array:
    """Min-norm weights from stochastic steps that two independent batches make unbiased.

    d = J₃ᵀλ with λ ← Π(λ − γ(J₁J₂ᵀλ + ρλ)) onto the simplex, J₁, J₂, J₃ from three independent
    batches (Algorithm 1).

    λ starts at 1/n. γ is absolute, as in the paper: what it does depends on the size of the
    gradients.

    Args:
        gamma: γ, the step size of λ.
        rho: ρ, the regulariser.

    Raises:
        InputError: for anything but three batches.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> cross = np.broadcast_to(np.diag([1.0, 3.0]), (3, 3, 2, 2))
        >>> modo = gs.get_strategy("modo", gamma=0.1)
        >>> weights = modo.weights(np.eye(2), cross=cross, state=gs.State())
        >>> weights.round(3).tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.55, 0.45]]
    """
    if len(cross) != 3:
        raise InputError(
            "strategy 'modo' takes three independent batches: "
            f"surgery.backward([losses_1, losses_2, losses_3]); got {len(cross)}."
        )
    n = cross.shape[-1]
    weights = state.vector("lambda", 1 / n)
    weights[:] = project_simplex(weights - gamma * (cross[0, 1] @ weights + rho * weights))
    return np.stack([np.zeros(n), np.zeros(n), weights])

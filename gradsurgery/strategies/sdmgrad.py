"""sdmgrad: stochastic direction-oriented multi-objective gradient descent."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
    PerObjective,
    Range,
    State,
    by_objective,
    strategy,
    when,
)
from gradsurgery.errors import InputError
from gradsurgery.solvers import project_simplex
from gradsurgery.types import Array


def _unpreferred(options: dict[str, Any]) -> bool:
    return options["preference"] is None


@strategy(
    "sdmgrad",
    paper="Xiao et al. 2023, arXiv:2305.18409",
    scale="mean",
    claims=(
        "deterministic",
        when("no preference is given", _unpreferred, "sums-to-one"),
    ),
    variants=({"preference": 0.5},),
    about=About(
        family="min-norm",
        use="Min-norm weights with a pull towards the mean, without the bias of one batch.",
        avoid="Three independent batches per step cost too much.",
        maths=(
            r"d = \frac{J_3^\top w + \lambda J_3^\top u}{1 + \lambda}, \qquad \min_{w \in \Delta} "
            r"\tfrac12 w^\top J_1 J_2^\top w + \lambda w^\top J_1 J_2^\top u"
        ),
        papers=(
            Citation(
                title=(
                    "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic "
                    "Algorithms"
                ),
                authors=("Peiyao Xiao", "Hao Ban", "Kaiyi Ji"),
                year=2023,
                venue="NeurIPS",
                arxiv="2305.18409",
                source=(
                    "README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning; "
                    "arxiv.org/abs/2305.18409"
                ),
            ),
        ),
        related={
            "SDMGrad-OS": "it samples objectives too, which is not in this library.",
        },
        differs=(
            (
                "The official code divides by the mean diagonal of J₁J₂ᵀ, which may be negative "
                "on two different batches; LibMTL by the square of the mean length. Here it is "
                "the mean product of the lengths."
            ),
            "LibMTL's learning rate is 5.",
        ),
    ),
)
def sdmgrad(
    cross: Array,
    state: State,
    objectives: tuple[str, ...],
    *,
    lam: Annotated[float, NON_NEGATIVE] = 0.3,
    lr: Annotated[float, POSITIVE] = 10.0,
    momentum: Annotated[float, Range(0, 1, high_open=True)] = 0.5,
    steps: Annotated[int, Range(1)] = 20,
    preference: Annotated[Any, PerObjective(NON_NEGATIVE)] | None = None,
) -> Array:
    """Min-norm weights with a pull towards the mean, from projected steps on independent batches.

    d = (J₃ᵀw + λJ₃ᵀu)/(1 + λ), u = 1/n, with w from projected steps on wᵀG₁₂w/2 + λwᵀG₁₂u, G₁₂ =
    J₁J₂ᵀ (Algorithm 1).

    J₁, J₂, J₃ come from three independent batches. G₁₂ is divided by the mean of n₁ᵢn₂ᵢ, the
    product of the lengths on both batches, so that the size of the gradients does not matter. (The
    official code takes its own mean diagonal, which may be negative on two different batches.) w
    goes on from where the last step left it; the momentum starts from zero. At the paper's
    learning rate w swings from side to side: between gradients that nearly cancel, rounding
    decides where it ends.

    The unit of `lr` is 1/mean(n₁ᵢn₂ᵢ). The official code and LibMTL divide by the square of the
    mean length, which is up to n times smaller: the same number is a shorter step here. LibMTL's
    is 5.

    Args:
        lam: λ, the pull towards the mean.
        lr: the learning rate of the steps on w.
        momentum: their momentum.
        steps: how many.
        preference: u in place of 1/n: a number for all, a dict by name, or numbers in the order of
            the losses; those that sum to one keep the scale.

    Raises:
        InputError: for anything but three batches, or when an objective has no number.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> cross = np.broadcast_to(np.diag([1.0, 1.0]), (3, 3, 2, 2))
        >>> sdmgrad, state = gs.get_strategy("sdmgrad"), gs.State()
        >>> sdmgrad.weights(np.eye(2), cross=cross, state=state)[2].tolist()
        [0.5, 0.5]
    """
    if len(cross) != 3:
        raise InputError(
            "strategy 'sdmgrad' takes three independent batches: "
            f"surgery.backward([losses_1, losses_2, losses_3]); got {len(cross)}."
        )
    n = cross.shape[-1]
    mean = np.full(n, 1 / n)
    if preference is not None:
        mean = by_objective("preference", preference, objectives)
    scale = float(np.mean(np.sqrt(np.diagonal(cross[0, 0])) * np.sqrt(np.diagonal(cross[1, 1]))))
    between = cross[0, 1] / scale if scale > 0 else np.zeros((n, n))
    weights, velocity = state.vector("w", 1 / n), np.zeros(n)
    for _ in range(steps):
        velocity = momentum * velocity + between @ (weights + lam * mean)
        weights[:] = project_simplex(weights - lr * velocity)
    return np.stack([np.zeros(n), np.zeros(n), (weights + lam * mean) / (1 + lam)])

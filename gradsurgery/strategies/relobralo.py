"""relobralo: relative loss balancing with random lookback."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
    SHARE,
    About,
    Citation,
    State,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.solvers import softmax
from gradsurgery.types import Array

LARGEST = 1e100  # of a ratio of losses, so that it stays a number when divided by T


@strategy(
    "relobralo",
    paper="Bischof & Kraus 2021, arXiv:2110.09813",
    scale="sum",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=({"rho": 0.0},),
    also=("ReLoBRaLo", "relative loss balancing", "random lookback"),
    about=About(
        family="losses",
        use="A PINN's losses fall at different rates, in one backward pass.",
        avoid="Losses are very noisy: each is compared with the step before.",
        maths=(
            r"\lambda \gets \alpha (\rho \lambda + (1 - \rho) \hat\lambda(0)) + (1 - \alpha) "
            r"\hat\lambda(t - 1), \qquad \hat\lambda(t') = n\, "
            r"\mathrm{softmax}\left(\frac{L_i(t)}{T L_i(t')}\right)"
        ),
        papers=(
            Citation(
                title="Multi-Objective Loss Balancing for Physics-Informed Deep Learning",
                authors=("Rafael Bischof", "Michael Kraus"),
                year=2021,
                arxiv="2110.09813",
                source="arxiv.org/abs/2110.09813v1",
            ),
        ),
        differs=(
            (
                "The official repository has rho = 1 (no lookback) and T = 1, and takes the "
                "losses of the second step for the first ones. The defaults here are those of the "
                "first author's article."
            ),
        ),
    ),
)
def relobralo(
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    rng: np.random.Generator,
    *,
    alpha: Annotated[float, SHARE] = 0.999,
    rho: Annotated[float, SHARE] = 0.99,
    temperature: Annotated[float, POSITIVE] = 0.1,
) -> Array:
    """The less a loss has fallen, since the step before or now and then the first, the more weight.

    λ ← α(ρλ + (1 − ρ)λ̂(0)) + (1 − α)λ̂(t − 1), where λ̂(t') = n·softmax(Lᵢ(t)/(T Lᵢ(t'))) and ρ is 1
    with probability `rho` in each step, else 0: a lookback to the first losses.

    An objective has λ = 1 in its first step, where its ratio is 1, and λ = λ̂(t − 1) in its second.
    So it is in code that the first author published with an article, whose defaults these are.
    The official repository has rho = 1 (no lookback) and T = 1, and takes the losses of the second
    step for the first ones. Both add 1e-12 to T·L(t'); here a ratio to a loss of exactly zero is 1.

    Args:
        alpha: α; the larger, the slower the weights change.
        rho: the expected ρ; the larger, the rarer are lookbacks.
        temperature: T; the larger, the more even are the weights.

    Raises:
        InputError: when a loss is negative; the message names it.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> balanced, state = gs.get_strategy("relobralo"), gs.State()
        >>> for losses in ([1.0, 1.0], [1.0, 0.9]):
        ...     weights = balanced.weights(np.eye(2), losses=losses, state=state)
        >>> weights.round(3).tolist()
        [1.462, 0.538]
    """
    losses = losses_from_zero("strategy 'relobralo'", losses, objectives)
    first, last = state.vector("first", np.nan), state.vector("last", np.nan)
    weights, steps = state.vector("weights", 1.0), state.vector("steps", 0.0)
    first[:] = np.where(np.isnan(first), losses, first)
    share = np.where(steps > 1, alpha, 0.0)
    before = weights if rng.random() < rho else _balanced(losses, first, temperature)
    weights[:] = share * before + (1 - share) * _balanced(losses, last, temperature)
    last[:] = losses
    steps += 1
    return weights.copy()


def _balanced(losses: Array, earlier: Array, temperature: float) -> Array:
    """λ̂ = n·softmax(L/(T L(t'))), with a ratio of 1 where there is none."""
    known = np.nan_to_num(earlier) > 0
    with np.errstate(over="ignore"):  # such a ratio is bounded in the next line
        ratios = np.divide(losses, earlier, out=np.ones(len(losses)), where=known)
    return np.asarray(len(losses) * softmax(np.minimum(ratios, LARGEST) / temperature))

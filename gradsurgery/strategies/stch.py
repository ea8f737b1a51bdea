"""stch: smooth Tchebycheff scalarization."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
    About,
    Citation,
    Range,
    State,
    by_objective,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.errors import InputError
from gradsurgery.solvers import softmax
from gradsurgery.types import Array

SMALL = 1e-8  # the official code adds 1e-20: a weight of 1e20 makes much of a rounded gradient


@strategy(
    "stch",
    paper="Lin et al. 2024, arXiv:2402.19078",
    scale="own",
    acts_on="losses",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=({"window": 0}, {"window": 0, "preference": {str(i): 1.0 + i for i in range(64)}}),
    also=("Tchebycheff", "Chebyshev", "smooth Tchebycheff", "smooth Chebyshev"),
    about=About(
        family="scalarisations",
        use="The largest loss, relative to a reference, should fall first, in one backward pass.",
        avoid="Losses can be negative, unless `window=0` is given.",
        maths=r"\nabla\, \mu \log \sum_i \exp\left(\frac{\lambda_i (f_i - z_i)}{\mu}\right)",
        papers=(
            Citation(
                title="Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
                authors=(
                    "Xi Lin",
                    "Xiaoyuan Zhang",
                    "Zhiyuan Yang",
                    "Fei Liu",
                    "Zhenkun Wang",
                    "Qingfu Zhang",
                ),
                year=2024,
                venue="ICML",
                arxiv="2402.19078",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The official multi-task runs take logarithms of losses over a nadir from a "
                "warm-up, the default here; the paper's formula is `window=0`."
            ),
            "The official code adds 1e-20 to the losses.",
        ),
    ),
)
def stch(
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    mu: Annotated[float, POSITIVE] = 1.0,
    window: Annotated[int, Range(0)] = 100,
    preference: Any = None,
    ideal: Any = 0.0,
) -> Array:
    """The gradient of a smooth maximum of the losses.

    The gradient of μ log Σᵢ exp(λᵢ(fᵢ − zᵢ)/μ), which tends to the largest λᵢ(fᵢ − zᵢ) as μ → 0
    (equation 7).

    With a window, as in the official multi-task runs, fᵢ = log(Lᵢ/L̄ᵢ), λ = 1 and the whole times
    n. The nadir L̄ᵢ is the mean of the objective's first `window` losses; during these steps Σ log
    Lᵢ is descended. Without a window fᵢ = Lᵢ, as the formula is written. With a window a loss of
    exactly zero counts as 1e-8.

    Args:
        mu: μ, the smoothing.
        window: how many steps the nadir is averaged over; 0 for the plain formula.
        preference: λ without a window (default 1/n): a dict from name to number, or numbers in the
            order of the losses when those are a sequence.
        ideal: z without a window: a number, or by objective as above.

    Raises:
        InputError: with a window, when a loss is negative (the message names it), or for a
            preference or an ideal point.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> smooth, state = gs.get_strategy("stch", window=0, mu=0.1), gs.State()
        >>> weights = smooth.weights(np.eye(2), losses=[1.0, 2.0], state=state)
        >>> weights.round(3).tolist()
        [0.003, 0.497]
    """
    n = len(losses)
    if window == 0:
        shares = (
            np.full(n, 1 / n)
            if preference is None
            else by_objective("preference", preference, objectives)
        )
        point = by_objective("ideal", ideal, objectives)
        return np.asarray(shares * softmax(shares * (losses - point) / mu))
    if preference is not None or ideal != 0.0:
        raise InputError(
            "strategy 'stch': preference and ideal belong to the plain formula: give window=0 too."
        )
    losses = losses_from_zero("strategy 'stch' with a window", losses, objectives, SMALL)
    count, total = state.vector("steps", 0.0), state.vector("total", 0.0)
    warm = count < window
    if warm.any():
        count[warm] += 1
        total[warm] += losses[warm]
        return np.asarray(1 / losses)
    return np.asarray(n * softmax(np.log(losses * window / total) / mu) / losses)

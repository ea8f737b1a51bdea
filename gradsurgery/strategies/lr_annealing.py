"""lr-annealing: learning rate annealing for physics-informed networks."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from gradsurgery.contract import (
    SHARE,
    About,
    Citation,
    ObjectiveName,
    Range,
    State,
    equivariant_when_named,
    homogeneous,
    strategy,
    when,
)


@strategy(
    "lr-annealing",
    paper="Wang et al. 2021, arXiv:2001.04536",
    scale="own",
    claims=(
        homogeneous(1),
        "deterministic",
        equivariant_when_named("residual", "the residual"),
        when("beta = 0", lambda options: options["beta"] == 0, "scale-invariant"),
    ),
    variants=({"residual": "0"}, {"weighted": False, "average": "coordinates", "beta": 0.0}),
    also=("LRA", "learning rate annealing", "gradient pathologies", "PINN"),
    about=About(
        family="lengths",
        use="A PINN's residual has far larger gradients than its boundary terms.",
        avoid="No loss has the part of the residual.",
        maths=(
            r"d = g_r + \sum_i \lambda_i g_i, \qquad \lambda_i \gets \beta \lambda_i + (1 - "
            r"\beta) \frac{\max |g_r|}{\operatorname{mean} |\lambda_i g_i|}"
        ),
        papers=(
            Citation(
                title=(
                    "Understanding and mitigating gradient flow pathologies in physics-informed "
                    "neural networks"
                ),
                authors=("Sifan Wang", "Yujun Teng", "Paris Perdikaris"),
                year=2021,
                venue="SIAM Journal on Scientific Computing",
                arxiv="2001.04536",
                source="README of github.com/PredictiveIntelligenceLab/GradientPathologiesPINNs",
                journal=True,
            ),
        ),
        related={
            "NTK": (
                "weights by the traces of the losses' tangent kernels (arXiv:2007.14527) are not "
                "in this library; lr-annealing weighs a PINN's losses by their gradients."
            ),
        },
        differs=(
            (
                "In the official code new λ act from the next step on, and biases are left out of "
                "the statistics."
            ),
            "In the official flow in a cavity λ̂ is the largest ratio of one layer.",
        ),
    ),
)
def lr_annealing(
    rows: Tensor,
    splits: Sequence[int],
    objectives: tuple[str, ...],
    state: State,
    *,
    residual: ObjectiveName | None = None,
    beta: Annotated[float, SHARE] = 0.9,
    period: Annotated[int, Range(1)] = 10,
    weighted: bool = True,
    average: Literal["tensors", "coordinates"] = "tensors",
) -> Tensor:
    """The residual's gradient plus the others, weighted by its largest entry over their mean one.

    d = g_r + Σᵢ λᵢgᵢ with λᵢ ← βλᵢ + (1 − β) max|g_r| / mean|λᵢgᵢ|, from λᵢ = 1 and renewed in the
    first and then every `period`-th step; |·| are the absolute entries.

    β, the period, the λᵢ within the mean and the mean over tensors are the official code's. It
    differs from this in three points: new λ act from the next step on, biases are left out of the
    statistics, and in its flow in a cavity λ̂ is the largest ratio of one layer. A user who wants
    the second gives the biases in a group of their own. An objective without a gradient keeps its
    λ. On a group that the residual does not reach d is the sum.

    Args:
        residual: the name of the loss of the equation's residual; None is the first.
        beta: β of the running weights.
        period: how many steps pass between two renewals.
        weighted: whether the mean is that of λᵢgᵢ; False for gᵢ, by which λ follows the ratio
            itself rather than its square root.
        average: "tensors" for the mean over parameter tensors of their entries' means,
            "coordinates" for the mean over all entries.

    Example:
        >>> import torch, gradsurgery as gs
        >>> annealed = gs.get_strategy("lr-annealing", beta=0.5)
        >>> rows = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
        >>> annealed(rows, state=gs.State())
        tensor([3.0000, 3.2500])
    """
    weights, count = state.vector("weights", 1.0), state.scalar("steps", 0.0)
    state["steps"] = count + 1
    if residual is not None and residual not in objectives:
        return rows.sum(0)
    first = 0 if residual is None else objectives.index(residual)
    if count % period == 0:
        means = _means(rows, splits if average == "tensors" else [rows.shape[1]])
        largest = float(rows[first].abs().max())
        for i, mean in enumerate(means):
            size = mean * (weights[i] if weighted else 1.0)
            if i != first and size > 0:
                weights[i] = beta * weights[i] + (1 - beta) * largest / size
    used = torch.as_tensor(weights, device=rows.device).clone()
    used[first] = 1.0
    return (rows.double() * used[:, None]).sum(0).to(rows.dtype)


def _means(rows: Tensor, splits: Sequence[int]) -> list[float]:
    """The mean absolute entry of each gradient [n], each of these parts with the same share."""
    parts = torch.split(rows.abs(), [size for size in splits if size], 1)
    means = torch.stack([part.mean(1, dtype=torch.float64) for part in parts]).mean(0)
    return [float(mean) for mean in means]

"""excess-mtl: weights from excess risks."""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract import POSITIVE, About, Citation, Range, State, homogeneous, strategy
from gradsurgery.solvers import softmax

LEAST = np.log(1e-8)  # of a weight beside the largest


@strategy(
    "excess-mtl",
    paper="He et al. 2024, ICML (ExcessMTL)",
    scale="sum",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    about=About(
        family="losses",
        use=(
            "Some objectives have noisy labels: their loss stays high although little is left to "
            "learn."
        ),
        avoid="Memory is short: it keeps a sum of squares per objective and parameter.",
        maths=(
            r"d = \sum_i w_i g_i, \qquad w_i \propto w_i\, e^{\eta \hat e_i}, \quad e_i = \sum "
            r"\frac{g_i^2}{\sqrt{\sum_t g_i^2}}"
        ),
        papers=(
            Citation(
                title="Robust Multi-Task Learning with Excess Risks",
                authors=(
                    "Yifei He",
                    "Shiji Zhou",
                    "Guojun Zhang",
                    "Hyokun Yun",
                    "Yi Xu",
                    "Belinda Zeng",
                    "Trishul Chilimbi",
                    "Han Zhao",
                ),
                year=2024,
                venue="ICML",
                arxiv="2402.02009",
                source="README of github.com/yifei-he/ExcessMTL",
            ),
        ),
        differs=(
            (
                "TorchJD takes the first step's excess risk undivided, so that its weights depend "
                "on the number of parameters."
            ),
            "The official code adds a constant under the root, which is left out here.",
        ),
    ),
)
def excess_mtl(
    rows: Tensor,
    state: State,
    *,
    eta: Annotated[float, POSITIVE] = 1.0,
    warmup: Annotated[int, Range(0)] = 0,
) -> Tensor:
    """Objectives with a large excess risk, relative to their first one, gain weight.

    d = Σ wᵢgᵢ, w ∝ w·exp(η êᵢ), Σw = n: exponentiated ascent on the excess risks (equations 6 to
    9).

    êᵢ is eᵢ = Σ g²/√(Σₜ g²) divided by the value it had at the objective's first step. The sum
    goes over the coordinates, the squares under the root over all steps so far. The root has no
    constant added: a coordinate without any gradient yet counts as zero, and the size of the
    gradients does not matter.

    As in the official code and LibMTL's, the first step moves no weight: it only gives what later
    ones are divided by. (TorchJD takes the first step's eᵢ undivided, so that its weights depend
    on the number of parameters.) An objective whose first gradients are zero begins with the first
    that is not.

    No weight falls below 1e-8 of the largest, which float32 cannot tell from zero; a smaller one
    might never return. The sums are kept in the parameters' dtype: in half precision small
    gradients stop counting beside large sums.

    Args:
        eta: η, the step size of the weights.
        warmup: in an objective's first `warmup` steps its weight stays, and the mean eᵢ over them
            takes the place of the first one; the paper counts three epochs (appendix C.1).

    Example:
        >>> import torch, gradsurgery as gs
        >>> excess = gs.get_strategy("excess-mtl")
        >>> excess(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), state=gs.State())
        tensor([1., 2.])
    """
    size, length = rows.abs(), state.rows("root of the squares")
    torch.hypot(length, rows, out=length)  # squares may leave the range of the gradients' dtype
    nothing = torch.zeros((), dtype=rows.dtype, device=rows.device)
    ratio = torch.where(length > 0, size * (size / length), nothing)
    excess = ratio.sum(1, dtype=torch.float64).cpu().numpy()
    start = state.vector("start", np.nan)
    begun = start > 0
    if warmup:
        count, total = state.vector("warmup steps", 0.0), state.vector("warmup excess", 0.0)
        waiting = ~begun & (count < warmup)
        count[waiting] += 1
        total[waiting] += excess[waiting]
        ready = ~begun & ~waiting & (total > 0)
        start[ready] = total[ready] / warmup
    else:
        waiting = np.zeros_like(begun)
    start[:] = np.where(~waiting & ~(start > 0) & (excess > 0), excess, start)
    relative = np.divide(excess, start, out=np.ones_like(excess), where=start > 0)
    logs = state.vector("logs", 0.0)
    # What all have in common would count against those that are absent.
    logs += eta * (relative - relative.mean())
    np.maximum(logs, logs.max() + LEAST, out=logs)
    weights = len(rows) * softmax(logs)
    return torch.as_tensor(weights, dtype=rows.dtype, device=rows.device) @ rows

"""excess-mtl: objectives that still have much to gain, measured against their beginning, gain weight."""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from gradsurgery.registry import POSITIVE, State, homogeneous, strategy
from gradsurgery.solvers import softmax


@strategy(
    "excess-mtl",
    paper="He et al. 2024, ICML (ExcessMTL)",
    scale="sum",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
)
def excess_mtl(rows: Tensor, state: State, *, eta: Annotated[float, POSITIVE] = 1.0) -> Tensor:
    """d = Σ wᵢgᵢ, w ∝ w·exp(η êᵢ), Σw = n: exponentiated ascent on the excess risks (equations 6 to 9).

    êᵢ is eᵢ = Σ g²/√(Σₜ g²), over the coordinates, with the squares summed over all steps so far, divided by the value it
    had at the objective's first step. The square root has no constant added: a coordinate without any gradient yet counts as
    zero, and the size of the gradients does not matter. The official code takes the first step's eᵢ undivided, which
    makes weights depend on the number of parameters; here, as in the paper, every step is relative to the first.

    The sums are kept in the parameters' dtype: in half precision small gradients stop counting beside large sums.

    Args:
        eta: η, the step size of the weights.

    Example:
        >>> import torch, gradsurgery as gs
        >>> excess = gs.get_strategy("excess-mtl")
        >>> excess(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), state=gs.State())
        tensor([1., 2.])
    """
    size, length = rows.abs(), state.rows("root of the squares")
    torch.hypot(length, rows, out=length)  # whose squares may leave the range of the gradients' dtype
    ratio = torch.where(length > 0, size * (size / length), torch.zeros((), dtype=rows.dtype, device=rows.device))
    excess = ratio.sum(1, dtype=torch.float64).cpu().numpy()
    start = state.vector("start", np.nan)
    start[:] = np.where(np.isnan(start), excess, start)
    relative = np.divide(excess, start, out=np.ones_like(excess), where=start > 0)
    logs = state.vector("logs", 0.0)
    logs += eta * (relative - relative.mean())  # what all have in common would count against those that are absent
    weights = len(rows) * softmax(logs)
    return torch.as_tensor(weights, dtype=rows.dtype, device=rows.device) @ rows

"""db-mtl: dual-balancing multi-task learning."""

from typing import Annotated

import torch
from torch import Tensor

from gradsurgery.contract import (
    NON_NEGATIVE,
    About,
    Citation,
    Range,
    State,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.types import Array

SMALL = 1e-8


@strategy(
    "db-mtl",
    paper="Lin et al. 2023, arXiv:2308.12029",
    scale="sum",
    claims=(homogeneous(1), "scale-invariant", "permutation-equivariant", "deterministic"),
    also=("dual balancing",),
    about=About(
        family="lengths",
        use="Both the losses and their gradients differ in size by orders of magnitude.",
        avoid="A loss may be negative, or the running gradients do not fit in memory.",
        maths=(
            r"d = \sum_i \frac{\max_j \lVert y_j\rVert}{\lVert y_i\rVert}\, y_i, \qquad y_i \gets "
            r"\beta_k y_i + (1 - \beta_k) \frac{g_i}{L_i}"
        ),
        papers=(
            Citation(
                title="Dual-Balancing for Multi-Task Learning",
                authors=(
                    "Baijiong Lin",
                    "Weisen Jiang",
                    "Feiyang Ye",
                    "Yu Zhang",
                    "Pengguang Chen",
                    "Ying-Cong Chen",
                    "Shu Liu",
                    "James T. Kwok",
                ),
                year=2023,
                arxiv="2308.12029",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The official code adds 1e-8 to every loss; here a loss of exactly zero counts as "
                "1e-8."
            ),
        ),
    ),
)
def db_mtl(
    rows: Tensor,
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    beta: Annotated[float, Range(0, 1, high_open=True)] = 0.9,
    beta_decay: Annotated[float, NON_NEGATIVE] = 0.0,
) -> Tensor:
    """Gradients of the log losses, averaged over the steps, each as long as the longest.

    d = Σᵢ (maxⱼ‖yⱼ‖/‖yᵢ‖) yᵢ with yᵢ ← βₖyᵢ + (1 − βₖ) gᵢ/Lᵢ, βₖ = β/k^σ in step k (equations 2
    and 3, Algorithm 1).

    gᵢ/Lᵢ is the gradient of log Lᵢ, which balances the losses' scales; the common length balances
    the gradients'. y starts at the first gradient's share (1 − β₁) gᵢ/Lᵢ, as in the official code.
    A loss of exactly zero counts as 1e-8, which that code adds to every loss.

    Args:
        beta: β of the running gradients.
        beta_decay: σ.

    Raises:
        InputError: when a loss is negative; the message names it.

    Example:
        >>> import torch, gradsurgery as gs
        >>> balanced = gs.get_strategy("db-mtl", beta=0.0)
        >>> rows = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> balanced(rows, losses=[1.0, 2.0], state=gs.State())
        tensor([3., 3.])
    """
    positive = losses_from_zero("strategy 'db-mtl'", losses, objectives, SMALL)
    sizes = torch.as_tensor(positive, device=rows.device)
    count = state.scalar("steps", 0.0) + 1
    state["steps"] = count
    share = beta / count**beta_decay
    running = state.rows("running")
    running.mul_(share).add_(rows * ((1 - share) / sizes).to(rows.dtype)[:, None])
    norms = torch.linalg.vector_norm(running, dim=1, dtype=torch.float64)
    weights = torch.where(norms > 0, norms.max() / torch.where(norms > 0, norms, 1.0), 1.0)
    return (running.double() * weights[:, None]).sum(0).to(rows.dtype)

"""moco: multi-objective gradient correction."""

from typing import Annotated

import torch
from torch import Tensor

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
    Range,
    State,
    homogeneous,
    losses_from_zero,
    strategy,
)
from gradsurgery.solvers import project_simplex
from gradsurgery.types import Array


@strategy(
    "moco",
    paper="Fernando et al. 2023, arXiv:2210.12624",
    scale="convex",
    claims=(homogeneous(0), "scale-invariant", "permutation-equivariant", "deterministic"),
    also=("multi-objective gradient correction",),
    about=About(
        family="min-norm",
        use="Batches are so noisy that min-norm weights of one batch mean little.",
        avoid="Memory is short: it keeps a running gradient per objective.",
        maths=(
            r"d = Y^\top \lambda, \qquad y_i \gets y_i - \beta_k \left(y_i - L_i "
            r"\frac{g_i}{\lVert g_i\rVert}\right), \quad \lambda \gets \Pi_\Delta\left(\lambda - "
            r"\gamma_k (Y Y^\top + \rho I) \lambda\right)"
        ),
        papers=(
            Citation(
                title=(
                    "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent "
                    "Approach"
                ),
                authors=(
                    "Heshan Devaka Fernando",
                    "Han Shen",
                    "Miao Liu",
                    "Subhajit Chaudhury",
                    "Keerthiram Murugesan",
                    "Tianyi Chen",
                ),
                year=2023,
                venue="ICLR",
                arxiv="2210.12624",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=("LibMTL's class has a softmax where the paper projects onto the simplex.",),
    ),
)
def moco(
    rows: Tensor,
    losses: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    beta: Annotated[float, Range(0, 1, low_open=True)] = 0.5,
    beta_decay: Annotated[float, NON_NEGATIVE] = 0.5,
    gamma: Annotated[float, POSITIVE] = 0.1,
    gamma_decay: Annotated[float, NON_NEGATIVE] = 0.5,
    rho: Annotated[float, NON_NEGATIVE] = 0.0,
) -> Tensor:
    """Min-norm weights that follow running gradients, in which noise is averaged out.

    d = Yᵀλ with yᵢ ← yᵢ − βₖ(yᵢ − Lᵢgᵢ/nᵢ) and λ ← Π(λ − γₖ(YYᵀ + ρI)λ) onto the simplex
    (Algorithm 1). βₖ = β/k^σ and γₖ = γ/k^τ in step k; y starts at zero and λ at 1/n.

    Gradients are brought to the length of their loss first, as in the official code; one whose
    loss is exactly zero adds nothing. LibMTL's class has a softmax where the paper projects onto
    the simplex. γ is absolute: beside losses of 1e3 and more λ leaps between objectives, which a
    smaller γ or smaller losses prevent.

    Args:
        beta: β of the running gradients.
        beta_decay: σ.
        gamma: γ, the step size of λ.
        gamma_decay: τ.
        rho: ρ, a regulariser of λ.

    Raises:
        InputError: when a loss is negative; the message names it.

    Example:
        >>> import torch, gradsurgery as gs
        >>> moco = gs.get_strategy("moco")
        >>> rows = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> moco(rows, losses=[1.0, 2.0], state=gs.State())
        tensor([0.2594, 0.4812])
    """
    sizes = losses_from_zero("strategy 'moco'", losses, objectives)
    count = state.scalar("steps", 0.0) + 1
    state["steps"] = count
    norms = _norms(rows)
    scale = torch.where(
        norms > 0,
        torch.as_tensor(sizes, dtype=norms.dtype, device=norms.device)
        / torch.where(norms > 0, norms, 1.0),
        0.0,
    )
    running = state.rows("running")
    share = beta / count**beta_decay
    running.mul_(1 - share).add_((rows.to(scale.dtype) * (share * scale)[:, None]).to(rows.dtype))
    gram = _gram(running)
    weights = state.vector("lambda", 1 / len(rows))
    weights[:] = project_simplex(
        weights - gamma / count**gamma_decay * (gram @ weights + rho * weights)
    )
    return torch.as_tensor(weights, dtype=rows.dtype, device=rows.device) @ running


def _norms(rows: Tensor) -> Tensor:
    """‖gᵢ‖ [n] in float64, whatever the squares' range in the rows' own dtype."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def _gram(rows: Tensor) -> Array:
    wide = rows.double()
    found: Array = (wide @ wide.T).cpu().numpy()
    return found

"""sand-mask: coordinates weighted by how far their gradients agree, in sign and in size."""

from typing import Annotated

import torch
from torch import Tensor

from gradsurgery.contract import POSITIVE, SHARE, About, Citation, strategy, when

CHUNK = 1 << 16  # coordinates at once: what is computed in float64 stays in the cache
ROUNDING = 1e-12  # of the share of signs, which may differ from τ by rounding alone


@strategy(
    "sand-mask",
    paper="Shahtalebi et al. 2021, arXiv:2106.02266",
    scale="mean",
    claims=(
        "permutation-equivariant",
        "deterministic",
        when("tau >= 1 - 2/n", lambda n, options: options["tau"] >= 1 - 2 / n, "non-conflicting"),
    ),
    variants=({"tau": 0.2, "k": 1e-3}, {"rescale": False}),
    also=("SANDMask", "smoothed AND-mask"),
    about=About(
        family="coordinates",
        use="As `and-mask`, where whole coordinates are too much to drop.",
        avoid="Gradients change in size: k is absolute beside their squares.",
        maths=(
            r"d = m \circ \frac1n \sum_i g_i, \qquad m = \max\left(0, "
            r"\tanh\left(\frac{k}{\sigma^2} \left(\left|\frac1n \sum_i \operatorname{sign} "
            r"g_i\right| - \tau\right)\right)\right)"
        ),
        papers=(
            Citation(
                title=(
                    "SAND-mask: An Enhanced Gradient Masking Strategy for the Discovery of "
                    "Invariances in Domain Generalization"
                ),
                authors=(
                    "Soroosh Shahtalebi",
                    "Jean-Christophe Gagnon-Audet",
                    "Touraj Laleh",
                    "Mojtaba Faramarzi",
                    "Kartik Ahuja",
                    "Irina Rish",
                ),
                year=2021,
                arxiv="2106.02266",
                source="arxiv.org/abs/2106.02266",
            ),
        ),
        differs=(
            (
                "The default τ = 1 of the official code, in DomainBed, makes the mask zero "
                "everywhere; here it is 0.5."
            ),
        ),
    ),
)
def sand_mask(
    rows: Tensor,
    splits: tuple[int, ...],
    *,
    tau: Annotated[float, SHARE] = 0.5,
    k: Annotated[float, POSITIVE] = 10.0,
    rescale: bool = True,
) -> Tensor:
    """The mean gradient, each coordinate by how far the gradients agree there in sign and in size.

    d = m ∘ (1/n) Σᵢ gᵢ with m = max(0, tanh(k/σ² (|1/n Σᵢ sign gᵢ| − τ))) per coordinate, and σ²
    the variance of the gradients there (with n − 1).

    In the paper an objective is the loss in one environment. m is a smooth `and-mask`: zero unless
    more than a share τ of the signs agree, and nearer to 1 the less the gradients differ. k is
    absolute, beside the square of a gradient, so that d is not proportional to the gradients. Where
    σ² is zero m is 1 if the signs agree.

    This is the official code, in DomainBed, without its constants of 1e-10 and 1e-17. Its default
    τ = 1 makes m zero everywhere; its searches draw τ from 0 to 1 and k from 1e-3 to 1e5.

    Args:
        tau: τ, the share of signs from which a coordinate counts.
        k: how steeply m rises.
        rescale: whether d is divided by the mean of m per parameter tensor, as the official code
            does.

    Example:
        >>> import torch, gradsurgery as gs
        >>> rows = torch.tensor([[1.0, -2.0, 2.0], [3.0, 1.0, 8.0]])
        >>> gs.get_strategy("sand-mask", rescale=False)(rows).round(decimals=3)
        tensor([1.9730, -0.0000, 1.3540])
    """
    out = torch.empty(rows.shape[1], dtype=torch.float64, device=rows.device)
    start = 0
    for size in splits:
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        for begin in range(start, start + size, CHUNK):
            piece = slice(begin, min(begin + CHUNK, start + size))
            wide = rows[:, piece].double()
            mask = _mask(wide, tau, k)
            out[piece] = mask * wide.mean(0)
            total += mask.sum()
        if rescale:
            out[start : start + size] *= torch.where(total > 0, size / total, 0.0)
        start += size
    return out.to(rows.dtype)


def _mask(rows: Tensor, tau: float, k: float) -> Tensor:
    """m for some coordinates, from gradients in float64."""
    excess = rows.sign().mean(0).abs() - tau
    counts = excess > ROUNDING
    variance = rows.var(0) if len(rows) > 1 else torch.zeros_like(excess)
    return torch.where(counts, torch.tanh(k * excess / variance), 0.0)

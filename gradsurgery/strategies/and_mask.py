"""and-mask: only coordinates whose gradients agree in sign."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from gradsurgery.contract import SHARE, About, Citation, homogeneous, strategy, when

ROUNDING = 1e-9  # of τ: a share of 3/5 counts as 0.6


def _agreed(n: int, options: dict[str, Any]) -> bool:
    """Whether no two gradients may differ in sign at a coordinate that is kept."""
    return bool(options["tau"] > 1 - 2 / n)


@strategy(
    "and-mask",
    paper="Parascandolo et al. 2021, arXiv:2009.00329",
    scale="mean",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        when("tau > 1 - 2/n", _agreed, "non-conflicting"),
        when(
            "the mean is geometric and tau > 1 - 2/n",
            lambda n, options: options["mean"] == "geometric" and _agreed(n, options),
            "scale-invariant",
        ),
    ),
    variants=(
        {"mean": "geometric"},
        {"tau": 0.5},
        {"tau": 0.8, "rescale": True},
        {"mean": "geometric", "rescale": True},
    ),
    also=("ANDMask", "ILC", "invariant learning consistency"),
    about=About(
        family="coordinates",
        use="Objectives are environments, and only what all of them agree on should be learned.",
        avoid="There are many objectives: hardly a coordinate is left where all signs agree.",
        maths=(
            r"d = m \circ \frac1n \sum_i g_i, \qquad m_j = \begin{cases} 1 & |\sum_i "
            r"\operatorname{sign} g_{ij}| \ge \tau n \\ 0 & \text{else} \end{cases}"
        ),
        papers=(
            Citation(
                title="Learning explanations that are hard to vary",
                authors=(
                    "Giambattista Parascandolo",
                    "Alexander Neitz",
                    "Antonio Orvieto",
                    "Luigi Gresele",
                    "Bernhard Schölkopf",
                ),
                year=2020,
                arxiv="2009.00329",
                source="README of github.com/gibipara92/learning-explanations-hard-to-vary",
            ),
        ),
        differs=(
            "The official code adds 1e-10 to every entry of a geometric mean.",
            (
                "Dividing by the share of coordinates that are kept is an option of the official "
                "code; DomainBed always does it."
            ),
        ),
    ),
)
def and_mask(
    rows: Tensor,
    splits: tuple[int, ...],
    *,
    tau: Annotated[float, SHARE] = 1.0,
    mean: Literal["arithmetic", "geometric"] = "arithmetic",
    rescale: bool = False,
) -> Tensor:
    """The mean gradient where the signs of the gradients agree, and zero at other coordinates.

    d = m ∘ (1/n) Σᵢ gᵢ with m = 1 at coordinates where |Σᵢ sign gᵢ| >= τn, and 0 elsewhere.

    In the paper an objective is the loss in one environment. With τ = 1 all gradients have one
    sign where d moves, so that no objective rises to first order. The geometric mean, sign(Σᵢ gᵢ)
    (Πᵢ |gᵢ|)^(1/n), is small wherever one gradient is; it is without the constant of 1e-10 that the
    official code adds to every entry.

    Args:
        tau: τ, from 0 (no coordinate is dropped) to 1 (all signs have to agree).
        mean: "arithmetic" or "geometric" mean of the gradients.
        rescale: whether d is divided, per parameter tensor, by the share of coordinates kept there.
            It is an option in the official code, and always on in DomainBed.

    Example:
        >>> import torch, gradsurgery as gs
        >>> rows = torch.tensor([[1.0, -2.0, 2.0], [3.0, 1.0, 8.0]])
        >>> gs.get_strategy("and-mask")(rows)
        tensor([2., 0., 5.])
        >>> gs.get_strategy("and-mask", mean="geometric", rescale=True)(rows)
        tensor([2.5981, 0.0000, 6.0000])
    """
    n = len(rows)
    signs = torch.zeros(rows.shape[1], dtype=torch.int32, device=rows.device)
    for row in rows:
        signs += row.sign().to(torch.int32)
    kept = signs.abs() >= tau * n - ROUNDING
    found = rows.mean(0)
    if mean == "geometric":
        logs = torch.zeros_like(found)
        for row in rows:
            logs += row.abs().log()
        found = found.sign() * (logs / n).exp()
    if rescale:
        sizes = list(splits)
        pieces = zip(torch.split(found, sizes), torch.split(kept, sizes), strict=True)
        found = torch.cat([piece / part.to(piece.dtype).mean() for piece, part in pieces])
    return torch.where(kept, found, 0.0)

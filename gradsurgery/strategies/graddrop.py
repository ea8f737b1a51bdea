"""graddrop: gradient sign dropout."""

from typing import Any

import torch
from torch import Tensor

from gradsurgery.contract import About, Citation, by_objective, homogeneous, strategy


@strategy(
    "graddrop",
    paper="Chen et al. 2020, arXiv:2010.06808",
    scale="sum",
    claims=(homogeneous(1), "permutation-equivariant"),
    variants=({"leak": {str(i): i / 64 for i in range(64)}},),
    also=("gradient sign dropout",),
    about=About(
        family="coordinates",
        use="Gradients disagree in sign at many coordinates, and noise is welcome.",
        avoid="Steps have to repeat without a seed, or no objective may rise.",
        maths=(
            r"d = \sum_i (\ell_i + (1 - \ell_i) M_i)\, g_i, \qquad P = \tfrac12\left(1 + "
            r"\frac{\sum g}{\sum |g|}\right)"
        ),
        papers=(
            Citation(
                title=(
                    "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout"
                ),
                authors=(
                    "Zhao Chen",
                    "Jiquan Ngiam",
                    "Yanping Huang",
                    "Thang Luong",
                    "Henrik Kretzschmar",
                    "Yuning Chai",
                    "Dragomir Anguelov",
                ),
                year=2020,
                venue="NeurIPS",
                arxiv="2010.06808",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        differs=(
            (
                "The paper masks gradients of a shared representation, each times the sign of its "
                "activation. Here coordinates are those of the parameters, or of the "
                "representation with `features=`."
            ),
        ),
    ),
)
def graddrop(
    rows: Tensor, generator: torch.Generator, objectives: tuple[str, ...], *, leak: Any = 0.0
) -> Tensor:
    """Per coordinate, the gradients of one sign, chosen at random, are kept and the others dropped.

    P = ½(1 + Σg/Σ|g|) and U ~ U(0, 1). gᵢ > 0 is kept where P > U, gᵢ < 0 where P < U
    (Algorithm 1). d = Σᵢ (ℓᵢ + (1 − ℓᵢ)Mᵢ) gᵢ with Mᵢ in {0, 1} whether it was kept.

    One pass over the gradients; U follows from (seed, step, group). Where all gradients agree in
    sign nothing is dropped.

    The paper masks the gradients of a shared representation, each times the sign of its
    activation. Here coordinates are those of the parameters; with `features=` those of the
    representation.

    Args:
        leak: ℓ in 0..1: a number for all, a dict from name to number, or numbers in the order of
            the losses when those are a sequence.

    Raises:
        InputError: when an objective has no number.

    Example:
        >>> import torch, gradsurgery as gs
        >>> gs.get_strategy("graddrop")(torch.tensor([[1.0, -2.0], [3.0, -1.0]]))
        tensor([ 4., -3.])
    """
    shares = by_objective("leak", leak, objectives).tolist()
    chance = torch.rand(rows.shape[1], generator=generator, dtype=torch.float32, device=rows.device)
    # The sums of the positive and of the negative entries: every row is read once, and nothing of
    # the size of all rows is made.
    positive, negative, part = (
        torch.zeros(rows.shape[1], dtype=rows.dtype, device=rows.device) for _ in range(3)
    )
    leaked = torch.zeros_like(positive) if any(shares) else None
    for row, share in zip(rows, shares, strict=True):
        for total, kept in ((positive, {"min": 0}), (negative, {"max": 0})):
            total.add_(torch.clamp(row, **kept, out=part), alpha=1 - share)
        if leaked is not None:
            leaked.add_(row, alpha=share)
    size = positive - negative if leaked is None else torch.linalg.vector_norm(rows, 1, dim=0)
    upper = positive if leaked is None else (size + rows.sum(0)) / 2
    found = torch.where(upper > size * chance, positive, negative)  # P > U
    return found if leaked is None else found.add_(leaked)

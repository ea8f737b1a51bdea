"""trimmed-mean: the coordinate-wise trimmed mean."""

from typing import Annotated

import torch
from torch import Tensor

from gradsurgery.contract import About, Citation, Range, homogeneous, strategy
from gradsurgery.errors import InputError

CHUNK = 1 << 16  # coordinates at once: what is computed stays in the cache


@strategy(
    "trimmed-mean",
    paper="Yin et al. 2018, arXiv:1803.01498",
    scale="mean",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=({"trim": 0}, {"trim": 2}),
    about=About(
        family="coordinates",
        use="Gradients come from several sources of one objective, and some may be wrong.",
        avoid="Objectives differ: extreme entries may be what one of them needs.",
        maths=r"d_j = \operatorname{mean} \{g_{ij}\} \text{ without the largest and the smallest}",
        papers=(
            Citation(
                title="Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
                authors=("Dong Yin", "Yudong Chen", "Kannan Ramchandran", "Peter Bartlett"),
                year=2018,
                venue="ICML",
                arxiv="1803.01498",
                source="icml.cc, 2018",
            ),
        ),
    ),
)
def trimmed_mean(rows: Tensor, *, trim: Annotated[int, Range(0)] = 1) -> Tensor:
    """Per coordinate, the mean without the largest and the smallest entries.

    The mean of the entries that are neither among the `trim` largest nor the `trim` smallest
    (definition 2).

    A minority of gradients, however large, moves no coordinate beyond the range of the others. One
    pass, piece by piece.

    Args:
        trim: how many entries are left out on each side.

    Raises:
        InputError: for fewer than 2·trim + 1 objectives.

    Example:
        >>> import torch, gradsurgery as gs
        >>> gs.get_strategy("trimmed-mean")(torch.tensor([[1.0], [2.0], [1e9]]))
        tensor([2.])
    """
    n = len(rows)
    if n <= 2 * trim:
        raise InputError(
            f"strategy 'trimmed-mean' with trim = {trim} needs more than {2 * trim} objectives; "
            f"got {n}."
        )
    out = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device)
    for start in range(0, rows.shape[1], CHUNK):
        piece = slice(start, start + CHUNK)
        out[piece] = rows[:, piece].sort(0).values[trim : n - trim].mean(0)
    return out

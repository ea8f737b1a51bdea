"""graddrop: per coordinate, the gradients of one sign are kept and those of the other dropped, by chance."""

from typing import Any

import torch
from torch import Tensor

from gradsurgery.registry import by_objective, homogeneous, strategy

CHUNK = 1 << 16  # coordinates at once: what is computed stays in the cache


@strategy(
    "graddrop",
    paper="Chen et al. 2020, arXiv:2010.06808",
    scale="sum",
    claims=(homogeneous(1), "permutation-equivariant"),
    variants=({"leak": tuple(i / 64 for i in range(64))},),
)
def graddrop(rows: Tensor, generator: torch.Generator, objectives: tuple[str, ...], *, leak: Any = 0.0) -> Tensor:
    """Per coordinate P = ½(1 + Σg/Σ|g|) and U ~ U(0, 1): gᵢ > 0 is kept where P > U, gᵢ < 0 where P < U (Algorithm 1).

    d = Σᵢ (ℓᵢ + (1 − ℓᵢ)Mᵢ) gᵢ with Mᵢ in {0, 1} whether it was kept. One pass over the gradients, piece by piece; U follows
    from (seed, step, group). Where all gradients agree in sign nothing is dropped.

    Args:
        leak: ℓ in 0..1: a number for all, a dict from name to number, or numbers in the order of the losses when those are
            a sequence.

    Raises:
        InputError: when an objective has no number.

    Example:
        >>> import torch, gradsurgery as gs
        >>> gs.get_strategy("graddrop")(torch.tensor([[1.0, -2.0], [3.0, -1.0]]))
        tensor([ 4., -3.])
    """
    shares = by_objective("leak", dict.fromkeys(objectives, leak) if isinstance(leak, int | float) else leak, objectives)
    leaks = torch.as_tensor(shares, dtype=rows.dtype, device=rows.device)[:, None]
    chance = torch.rand(rows.shape[1], generator=generator, dtype=torch.float32, device=rows.device)
    out = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device)
    leaky = bool(shares.any())
    for start in range(0, rows.shape[1], CHUNK):
        piece = slice(start, start + CHUNK)
        part = rows[:, piece]
        total, size = part.sum(0), torch.linalg.vector_norm(part, 1, dim=0)
        positive = (total + size) > 2 * size * chance[piece]  # P > U
        # of the kept sign: (Σ|g| + Σg)/2 is the sum of the positive ones, (Σg − Σ|g|)/2 that of the negative ones
        kept = torch.where(positive, part.clamp(min=0).sum(0), part.clamp(max=0).sum(0)) if not leaky else None
        if kept is None:
            same = (part > 0) == positive
            kept = (part * torch.where(same, torch.ones((), dtype=rows.dtype, device=rows.device), leaks)).sum(0)
        out[piece] = kept
    return out

"""Directions d = Jᵀw, tensor by tensor, each in the parameter's dtype and layout."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradsurgery.gradients.blocks import Block, Dense, Factored
from gradsurgery.gradients.sparse import combine_sparse
from gradsurgery.types import Array

PIECE = {"cpu": 1 << 15, "other": 1 << 20}
CANCELLING = 4.0  # terms this many times longer than their sum are summed in float64
IN_RANGE = (1e-30, 1e30)  # weights that float32 holds: a gradient of 1e-20 may need others
WIDE = (torch.float32, torch.float64)


@torch.no_grad()
def directions(
    blocks: Sequence[Block],
    runs: Sequence[Sequence[int]],
    weights: Array,
    precise: bool,
) -> list[Tensor | None]:
    """d = Jᵀw in new tensors, or in the memory that a block says; None where no objective reaches.

    Args:
        blocks: the gradients, tensor by tensor.
        runs: which tensors are handled together.
        weights: [n], or [k, n] with one row per tensor.
        precise: sum in float64.
    """
    out: list[Tensor | None] = [None] * len(blocks)
    rows = weights.tolist() if weights.ndim > 1 else [weights.tolist()] * len(blocks)
    together = not precise and weights.ndim == 1 and all_in_range(weights.tolist())
    for run in runs:
        if together and len(run) > 1 and blocks[run[0]].like.dtype in WIDE:
            found = _combine_run([blocks[t] for t in run], rows[0])
            for t, direction in zip(run, found, strict=False):
                out[t] = direction
            continue
        for t in run:
            block, column = blocks[t], blocks[t].gradients
            if type(block) is Dense:
                out[t] = _combine(block, rows[t], precise)
            elif type(block) is Factored:
                out[t] = block.layer.combine(column, rows[t], block.like, precise)
            else:
                out[t] = combine_sparse(column, rows[t])
    return out


def all_in_range(weights: Sequence[float]) -> bool:
    """Whether float32 holds all weights."""
    return all(w == 0 or IN_RANGE[0] < abs(w) < IN_RANGE[1] for w in weights)


def cancels(weights: Array, grams: Array, total: Array, like: Sequence[Tensor]) -> bool:
    """Whether d is so much shorter than its terms that float32 would leave little of it.

    Args:
        weights: [n], or [k, n].
        grams: [1, n, n], or [k, n, n].
        total: their sum.
        like: the k tensors.
    """
    if len(total) == 1 or all(t.dtype == torch.float64 for t in like):
        return False
    norms = np.sqrt(np.diagonal(total))
    with np.errstate(over="ignore", invalid="ignore"):
        if weights.ndim == 1 and len(grams) == 1:
            shorter = (float(np.abs(weights) @ norms) / CANCELLING) ** 2
            return bool(weights @ grams[0] @ weights < shorter)
        table = np.broadcast_to(weights, (len(like), len(norms)))
        used = table if len(grams) == len(table) else table[:1]
        shorter = (float(np.abs(table).max(0) @ norms) / CANCELLING) ** 2
        return bool(np.einsum("ki,kij,kj->", used, grams, used) < shorter)


def _combine_run(blocks: Sequence[Block], weights: Sequence[float]) -> list[Tensor]:
    """Σ wᵢgᵢ of tensors of one dtype that the same objectives reach, if any.

    One call into torch per objective.
    """
    reaching = [i for i, g in enumerate(blocks[0].gradients) if g is not None]
    if not reaching:
        return []
    rows = [
        (w, [g for block in blocks if (g := block.gradients[i]) is not None])
        for i in reaching
        if (w := weights[i]) != 0
    ]
    if not rows:
        return [torch.zeros_like(block.like) for block in blocks]
    weight, first = rows[0]
    out = [own for block in blocks if (own := _memory(block, reaching[0])) is not None]
    if len(out) < len(blocks):
        out = list(torch._foreach_mul(first, weight))
    else:
        if weights[reaching[0]] == 0:
            torch._foreach_copy_(out, first)
        if weight != 1:
            torch._foreach_mul_(out, weight)
    for weight, row in rows[1:]:
        torch._foreach_add_(out, row, alpha=weight)
    return [_laid_out(d, block.like) for d, block in zip(out, blocks, strict=True)]


def _combine(block: Dense, weights: Sequence[float], precise: bool) -> Tensor | None:
    """Σ wᵢgᵢ for one tensor."""
    like, column = block.like, block.gradients
    reaching = [i for i, g in enumerate(column) if g is not None]
    if not reaching:
        return None
    terms = [(w, g) for w, g in zip(weights, column, strict=True) if g is not None and w != 0]
    if not terms:
        return torch.zeros_like(like)
    wide = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    if wide == torch.float32 and not all_in_range([w for w, _ in terms]):
        wide = torch.float64
    if precise and wide == torch.float32 and like.device.type != "mps":
        return _combine_precisely(terms, like)
    first, gradient = terms[0]
    out = _memory(block, reaching[0])
    if out is not None and out.dtype == wide:
        if weights[reaching[0]] == 0:
            torch.mul(gradient, first, out=out)
        elif first != 1:
            out.mul_(first)
    else:
        out = torch.mul(gradient if gradient.dtype == wide else gradient.to(wide), first)
    for weight, gradient in terms[1:]:
        out.add_(gradient if gradient.dtype == wide else gradient.to(wide), alpha=weight)
    return _laid_out(out.to(like.dtype), like)


def _memory(block: Block, first: int) -> Tensor | None:
    """Where d may be formed: in the first gradient's memory, which no later term then needs."""
    if type(block) is not Dense or block.into is None:
        return None
    gradient = block.gradients[first]
    same = gradient is not None and block.into.data_ptr() == gradient.data_ptr()
    return block.into if same else None


def _laid_out(direction: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the parameter's layout, as torch writes them into `.grad`."""
    if direction.stride() == like.stride():
        return direction
    return torch.empty_like(like).copy_(direction)


def _combine_precisely(terms: Sequence[tuple[float, Tensor]], like: Tensor) -> Tensor:
    """Σ wᵢgᵢ summed in float64 and rounded once, piece by piece."""
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    flat, pieces = out.view(-1), [gradient.reshape(-1) for _, gradient in terms]
    step = min(PIECE.get(like.device.type, PIECE["other"]), max(like.numel(), 1))
    for start in range(0, like.numel(), step):
        total = torch.mul(pieces[0][start : start + step].double(), terms[0][0])
        for (weight, _), piece in zip(terms[1:], pieces[1:], strict=True):
            total.add_(piece[start : start + step].double(), alpha=weight)
        flat[start : start + step] = total
    return out if like.is_contiguous() else torch.empty_like(like).copy_(out)

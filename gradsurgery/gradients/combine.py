"""Directions d = Jᵀw, tensor by tensor, each in the parameter's dtype and layout."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradsurgery.gradients.blocks import Block, Dense, Factored
from gradsurgery.gradients.per_example.block import Mixed
from gradsurgery.gradients.sparse import combine_sparse
from gradsurgery.types import Array

PIECE = {"cpu": 1 << 15, "other": 1 << 20}
IN_RANGE = (1e-30, 1e30)  # weights that float32 holds: a gradient of 1e-20 may need others
CANCELLING = 4.0  # terms this many times longer than their sum are summed in float64
# The same where they are never formed. One product of float32 factors is their sum, as in a plain
# backward pass, and is rounded relative to the terms as these would be.
CANCELLING_MIXTURES = 1e4
WIDE = (torch.float32, torch.float64)


@torch.no_grad()
def directions(
    blocks: Sequence[Block],
    runs: Sequence[Sequence[int]],
    weights: Array,
    precise: bool,
    reuse: bool = False,
) -> list[Tensor | None]:
    """d = Jᵀw in the parameters' dtypes and layouts; None where no objective reaches a tensor.

    Args:
        blocks: the gradients, tensor by tensor.
        runs: which tensors are handled together.
        weights: [n], or [k, n] with one row per tensor.
        precise: sum in float64.
        reuse: form d in the memory that a block says, and drop each tensor's gradients after it.
    """
    out: list[Tensor | None] = [None] * len(blocks)
    rows = weights.tolist() if weights.ndim > 1 else [weights.tolist()] * len(blocks)
    for run in runs:
        few = [blocks[t] for t in run]
        if len(run) > 1 and weights.ndim == 1 and not precise and few[0].like.dtype in WIDE:
            for t, direction in zip(run, _combine_run(few, rows[0], reuse), strict=False):
                out[t] = direction
        else:
            for t, block in zip(run, few, strict=True):
                if type(block) is Dense:
                    out[t] = _combine(block, rows[t], precise, reuse)
                elif type(block) is Mixed:
                    out[t] = block.combine(rows[t], precise)
                elif type(block) is Factored:
                    out[t] = block.layer.combine(block.gradients, rows[t], block.like, precise)
                else:
                    out[t] = combine_sparse(block.gradients, rows[t])
        if reuse:
            for block in few:
                if isinstance(block, Mixed):
                    continue  # nothing of it was formed
                block.gradients[:] = [None] * len(block.gradients)
                if type(block) is Dense:
                    block.into = None
    return out


def needs_float64(
    weights: Array,
    grams: Array | None,
    bound: float,
    like: Sequence[Tensor],
    mixtures: bool = False,
) -> bool:
    """Whether float32 would leave little of d: weights out of its range, or terms that cancel.

    Args:
        weights: [n], or [k, n].
        grams: [1, n, n], or [k, n, n]; None where there are none.
        bound: Σ |wᵢ| ‖gᵢ‖, the largest over the tensors.
        like: the k tensors.
        mixtures: whether the terms are mixtures of per-example gradients.
    """
    if all(t.dtype == torch.float64 for t in like):
        return False
    least, most = IN_RANGE
    if not all(w == 0 or least < abs(w) < most for w in weights.reshape(-1).tolist()):
        return True
    if grams is None or weights.shape[-1] == 1:
        return False
    shorter = (bound / (CANCELLING_MIXTURES if mixtures else CANCELLING)) ** 2
    with np.errstate(over="ignore", invalid="ignore"):
        if weights.ndim == 1 and len(grams) == 1:
            return bool(weights @ grams[0] @ weights < shorter)
        table = np.broadcast_to(weights, (len(like), weights.shape[-1]))
        used = table if len(grams) == len(table) else table[:1]
        return bool(np.einsum("ki,kij,kj->", used, grams, used) < shorter)


def _combine_run(blocks: Sequence[Block], weights: Sequence[float], reuse: bool) -> list[Tensor]:
    """Σ wᵢgᵢ of tensors of one dtype that the same objectives reach, if any.

    One call into torch per objective.
    """
    # Gradients that some of the tensors lack, all lack.
    rows = [
        (w, [g for block in blocks if (g := block.gradients[i]) is not None])
        for i, w in enumerate(weights)
        if w != 0
    ]
    rows = [(w, row) for w, row in rows if row]
    if not rows:
        reached = any(g is not None for g in blocks[0].gradients)
        return [torch.zeros_like(block.like) for block in blocks] if reached else []
    weight, first = rows[0]
    own = [block.into for block in blocks if type(block) is Dense] if reuse else []
    free = [
        d
        for d, g in zip(own, first, strict=False)
        if d is not None and d.data_ptr() == g.data_ptr()
    ]
    if len(free) == len(blocks):
        out = free
        if weight != 1:
            torch._foreach_mul_(out, weight)
    else:
        out = list(torch._foreach_mul(first, weight))
    for weight, row in rows[1:]:
        torch._foreach_add_(out, row, alpha=weight)
    for t, block in enumerate(blocks):
        if out[t].stride() != block.like.stride():
            out[t] = _laid_out(out[t], block.like)
    return out


def _combine(block: Dense, weights: Sequence[float], precise: bool, reuse: bool) -> Tensor | None:
    """Σ wᵢgᵢ for one tensor."""
    like, column = block.like, block.gradients
    terms = [(w, g) for w, g in zip(weights, column, strict=True) if g is not None]
    if not terms:
        return None
    donor = terms[0][1]
    terms = [(w, g) for w, g in terms if w != 0]
    if not terms:
        return torch.zeros_like(like)
    wide = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    if precise and wide == torch.float32 and like.device.type != "mps":
        return _combine_precisely(terms, like)
    weight, gradient = terms[0]
    own = block.into if reuse else None
    if own is not None and own.dtype == wide and own.data_ptr() == donor.data_ptr():
        # Its gradient is the first term, or none at all.
        out = own if gradient is donor and weight == 1 else torch.mul(gradient, weight, out=own)
    else:
        out = torch.mul(gradient if gradient.dtype == wide else gradient.to(wide), weight)
    for weight, gradient in terms[1:]:
        out.add_(gradient if gradient.dtype == wide else gradient.to(wide), alpha=weight)
    return _laid_out(out.to(like.dtype), like)


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

"""J [n, d] as one tensor, for the strategies that need it, and what is read of its blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.gradients.blocks import Block, Factored, gradient_of
from gradsurgery.gradients.per_example.block import Mixed
from gradsurgery.gradients.precision import LARGE, may_be_single


def rows_of(
    blocks: Sequence[Block], like: Sequence[Tensor], splits: Sequence[int], count: int, scale: float
) -> Tensor:
    """J [n, d], copied, without the scale of its gradients.

    Args:
        blocks: the gradients, tensor by tensor.
        like: the tensors, for their dtypes and device.
        splits: the number of elements of each.
        count: n.
        scale: what the gradients come multiplied by.
    """
    dtype = like[0].dtype
    for tensor in like[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if scale != 1:
        dtype = torch.promote_types(dtype, torch.float32)
    rows = torch.zeros(count, sum(splits), dtype=dtype, device=like[0].device)
    for block, pieces in zip(blocks, torch.split(rows, list(splits), 1), strict=True):
        if isinstance(block, Mixed):
            pieces.copy_(block.formed())
            continue
        for i, piece in enumerate(pieces):
            if (gradient := gradient_of(block, i)) is not None:
                piece.copy_(gradient.reshape(-1))
    return rows if scale == 1 else rows.div_(scale)


def kept_only(block: Block, rows: Sequence[int]) -> list[Tensor | None]:
    """The gradients of some objectives, as they are; none of what is only formed when asked for."""
    if isinstance(block, Mixed):
        return [None] * len(rows)
    return [block.gradients[i] for i in rows]


def worth_float32(blocks: Sequence[Block], size: int) -> bool:
    """Whether products are to be made in float32 first: it may suffice, and saves something.

    Args:
        blocks: the gradients.
        size: how many entries they have, formed.
    """
    mixed = [block for block in blocks if isinstance(block, Mixed)]
    factored = bool(mixed) or any(type(block) is Factored for block in blocks)
    if not (factored or size >= LARGE) or not all(b.mixture.independent for b in mixed[:1]):
        return False
    found = []
    for block in blocks:
        own = [block.like] if isinstance(block, Mixed) else block.gradients
        found += [g for g in own if g is not None]
    made = sum(b.use.size * b.use.examples for b in mixed)
    if not (made + sum(g.numel() for g in found) >= LARGE or (factored and not mixed)):
        return False
    return may_be_single(found)

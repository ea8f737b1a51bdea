"""Gram matrices of gradients: one read of them piece by piece, no [n, d] copy.

Products are summed in float64 whatever the gradients' dtype (on the host for devices without it),
so that squares of float32 or half gradients stay in range; `precision` says where float32 helps.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradsurgery.gradients.blocks import Block, Dense, Factored, Sparse
from gradsurgery.gradients.per_example.block import Mixed, products_of
from gradsurgery.gradients.precision import in_pieces
from gradsurgery.gradients.sparse import gram_sparse

Product = tuple[int, Tensor]  # which tensor's Gram matrix it belongs to (0 for their sum), and G
# one vector of several tensors, in one call
flatten: Callable[[Sequence[Tensor]], Tensor] = torch._utils._flatten_dense_tensors
CPU = torch.device("cpu")
# Entries of the work buffer: enough for one matrix product to pay, few beside the gradients.
BUFFER = {"cpu": 1 << 19, "other": 1 << 24}
ALONE = 1 << 15  # tensors with more entries are handled one by one, smaller ones in runs
RUN = 1 << 17  # entries that are copied at a time where small gradients are read together


def runs_of(blocks: Sequence[Block], sizes: Sequence[int]) -> list[list[int]]:
    """The tensors that are handled together, by position.

    Large, factored and sparse ones are alone; small ones of one dtype that the same objectives
    reach are in runs.
    """
    runs: list[list[int]] = []
    begun: dict[tuple[object, ...], tuple[list[int], int]] = {}
    for t, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
        if size > ALONE or type(block) is not Dense:
            runs.append([t])
            continue
        like = block.like
        key = (like.dtype, like.device, *[g is None for g in block.gradients])
        run, length = begun.get(key, ([], 0))
        if not run or length + size > RUN:
            run, length = [], 0
            runs.append(run)
        run.append(t)
        begun[key] = run, length + size
    return runs


def products(
    blocks: Sequence[Block],
    sizes: Sequence[int],
    runs: Sequence[list[int]],
    per_tensor: bool,
    dtype: torch.dtype,
) -> tuple[list[Product], list[Tensor]]:
    """The Gram matrices of some tensors, or the parts of their sum, on their devices.

    Args:
        blocks: the gradients, tensor by tensor.
        sizes: the number of elements of each tensor.
        runs: which are handled together.
        per_tensor: one Gram matrix per tensor, and not their sum.
        dtype: what the first sums are made in.

    Returns:
        The products, which add up, and for factored ones ‖x‖²‖Δᵢ‖² [n].
    """
    if not blocks:
        return [], []
    n, first = len(blocks[0].gradients), blocks[0]
    few = 0 < n * sum(sizes) <= RUN and len(runs) == 1 and not per_tensor and type(first) is Dense
    if few and first.like.device.type != "mps" and all(g is not None for g in first.gradients):
        # What a small model has: all of it in one product.
        found = [g for i in range(n) for b in blocks if (g := b.gradients[i]) is not None]
        flat = flatten(found) if len(found) > 1 else found[0].reshape(-1)
        rows = flat.double().view(n, -1)
        return [(0, rows @ rows.T if n > 1 else torch.dot(rows[0], rows[0]))], []
    dense = [run for run in runs if type(blocks[run[0]]) is Dense]
    if per_tensor:
        dense = [[t] for run in dense for t in run]
    parts = _dense_products(blocks, sizes, dense, per_tensor, dtype) if dense else []
    lost: list[Tensor] = []
    mixed = [(t, block) for t, block in enumerate(blocks) if isinstance(block, Mixed)]
    if mixed:
        own, lost = products_of(mixed, per_tensor, dtype == torch.float64)
        parts += own
    for t, block in enumerate(blocks if len(dense) < len(runs) or per_tensor else ()):
        if type(block) in (Dense, Mixed) or all(g is None for g in block.gradients):
            continue
        if type(block) is Factored:
            product, bound = block.layer.gram(block.gradients, dtype)
            lost.append(bound)
        else:
            product = gram_sparse(block.gradients)
        parts.append((t if per_tensor else 0, product))
    return parts, lost


def counted(
    portions: Sequence[float],
    blocks: Sequence[Block],
    sizes: Sequence[int],
    runs: Sequence[list[int]],
    per_tensor: bool,
    dtype: torch.dtype,
) -> tuple[list[Product], list[Tensor]]:
    """What `products` gives, each tensor's times its portion; for dense tensors."""
    found: list[Product] = []
    for portion in sorted(set(portions)):
        own = [[t for t in run if portions[t] == portion] for run in runs]
        some = [[t] for run in own for t in run] if per_tensor else [run for run in own if run]
        parts = _dense_products(blocks, sizes, some, per_tensor, dtype)
        found += [(t, product * portion) for t, product in parts]
    return found, []


@torch.no_grad()
def grams_by_tensor(
    gradients: list[list[Tensor | None]],
    like: list[Tensor],
    sparse: frozenset[int] = frozenset(),
) -> list[Tensor]:
    """The Gram matrix [n, n] of the gradients for each tensor, summed in float64, on their device.

    Args:
        gradients: n rows of gradients, one per tensor.
        like: the tensors.
        sparse: the positions of tensors whose gradients are sparse.
    """
    columns = [list(column) for column in zip(*gradients, strict=True)]
    blocks: list[Block] = [
        Sparse(column, tensor) if t in sparse else Dense(column, tensor)
        for t, (column, tensor) in enumerate(zip(columns, like, strict=True))
    ]
    n, sizes = len(gradients), [t.numel() for t in like]
    found, _ = products(blocks, sizes, [[t] for t in range(len(like))], True, torch.float64)
    grams = dict(found)
    return [
        grams[t] if t in grams else torch.zeros(n, n, dtype=torch.float64) for t in range(len(like))
    ]


def _dense_products(
    blocks: Sequence[Block],
    sizes: Sequence[int],
    runs: Sequence[list[int]],
    per_tensor: bool,
    dtype: torch.dtype,
) -> list[Product]:
    """The products of the tensors in `runs`, in float64, one per block and device."""
    n = len(blocks[0].gradients)
    sums: dict[tuple[int, torch.device], Tensor] = {}
    buffers: dict[torch.device, Tensor] = {}
    filled: dict[torch.device, int] = {}

    def flush(block: int, device: torch.device) -> None:
        used = buffers[device][:, : filled[device]]
        product = used @ used.T if dtype == torch.float64 else in_pieces(used, used)
        sums[block, device] = sums[block, device] + product if (block, device) in sums else product
        filled[device] = 0

    lengths = [sum([sizes[t] for t in run]) for run in runs]
    largest = max(lengths) if per_tensor else sum(lengths)
    for run, length in zip(runs, lengths, strict=True):
        rows = [one_vector([blocks[t].gradients[i] for t in run]) for i in range(n)]
        device = next((row.device for row in rows if row is not None), blocks[run[0]].like.device)
        device = CPU if device.type == "mps" else device
        if device not in buffers:
            width = max(1024, BUFFER.get(device.type, BUFFER["other"]) // n)
            buffers[device] = torch.empty(
                n, min(width, max(largest, 1)), dtype=dtype, device=device
            )
            filled[device] = 0
        buffer, done, block = buffers[device], 0, run[0] if per_tensor else 0
        while done < length:
            start = filled[device]
            size = min(buffer.shape[1] - start, length - done)
            for i, row in enumerate(rows):
                target = buffer[i, start : start + size]
                if row is None:
                    target.zero_()
                else:
                    target.copy_(row[done : done + size])
            done, filled[device] = done + size, start + size
            if filled[device] == buffer.shape[1]:
                flush(block, device)
        if per_tensor and filled[device]:
            flush(block, device)
    for device, used in filled.items():
        if used:
            flush(0, device)
    return [(block, product) for (block, _), product in sums.items()]


def one_vector(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """One vector of several tensors, or None where there are none."""
    found = [tensor for tensor in tensors if tensor is not None]
    if len(found) < 2:
        return found[0].reshape(-1) if found else None
    return flatten(found)

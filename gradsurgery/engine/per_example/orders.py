"""Nodes that pick or move entries by indices: with other indices examples may be elsewhere."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Orders = dict[int, list[Tensor]]

# node -> what it saved that says where entries come from
INDEXED = {
    "IndexBackward0": "indices",
    "IndexPutBackward0": "indices",
    "IndexSelectBackward0": "index",
    "IndexAddBackward0": "index",
    "IndexCopyBackward0": "index",
    "MaskedSelectBackward0": "mask",
    "PackPaddedSequenceBackward0": "batch_sizes",
}
# these move entries within one dimension
WITHIN = {
    "GatherBackward0": "index",
    "ScatterBackward0": "index",
    "ScatterAddBackward0": "index",
    "SortBackward0": "indices",
    "TopkBackward0": "indices",
}


def orders_of(nodes: Mapping[int, Any], examples: int) -> Orders:
    """The indices of the nodes that may move entries from example to example.

    Args:
        nodes: number -> node, of the graph.
        examples: B.
    """
    found: Orders = {}
    for number, node in nodes.items():
        kind = type(node).__name__
        if kind in INDEXED:
            given = getattr(node, f"_saved_{INDEXED[kind]}")
            indices = [given] if isinstance(given, Tensor) else [i for i in given if i is not None]
            if not any(_counts(index, examples) for index in indices):
                found[number] = indices
        elif kind in WITHIN:
            index = getattr(node, f"_saved_{WITHIN[kind]}")
            dim = int(node._saved_dim)
            dim -= 1 << 64 if dim >= 1 << 63 else 0  # torch shows negative ones without sign
            first = index.ndim == 0 or dim % index.ndim == 0
            if first or index.shape[dim] >= examples:
                found[number] = [index]
    return found


def same(first: Orders, second: Orders) -> bool:
    """Whether all indices are the same."""
    return first.keys() == second.keys() and all(
        len(own) == len(second[number])
        and all(torch.equal(a, b) for a, b in zip(own, second[number], strict=True))
        for number, own in first.items()
    )


def _counts(index: Tensor, examples: int) -> bool:
    """Whether an index takes from each example what goes to it, as arange(B) does."""
    if index.numel() != examples or index.dtype in (torch.bool, torch.uint8):
        return False
    return bool((index.reshape(-1) == torch.arange(examples, device=index.device)).all())

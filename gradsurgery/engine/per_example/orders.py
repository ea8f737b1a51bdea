"""What a graph does that its nodes do not show: which entries are picked, and by how much scaled.

With other indices examples may be elsewhere, and a coefficient that was zero may let in others.
"""

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
    "PackPaddedSequenceBackward0": "result1",  # the batch sizes
}
# these move entries within one dimension
WITHIN = {
    "GatherBackward0": "index",
    "ScatterBackward0": "index",
    "ScatterAddBackward0": "index",
    "SortBackward0": "indices",
    "TopkBackward0": "indices",
}

# node -> the numbers that it saved
SCALED = {
    "MulBackward0": ("self", "other"),
    "AddBackward0": ("alpha",),
    "SubBackward0": ("alpha",),
    "LerpBackward0": ("weight",),
}
GROWTH = 10.0  # what a check finds from 3e-5 of a gradient on, is less than 3e-4 before the next


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
        elif kind == "MmBackward0" and _between_rows(node):
            found[number] = [node._saved_self]
        elif kind in WITHIN:
            index = getattr(node, f"_saved_{WITHIN[kind]}")
            dim = signed(node._saved_dim)
            first = index.ndim == 0 or dim % index.ndim == 0
            if first or index.shape[dim] >= examples:
                found[number] = [index]
    return found


def signed(value: int) -> int:
    """What a node saved of a dimension or place: torch shows negative ones without sign."""
    return value - (1 << 64) if value >= 1 << 63 else value


def scales_of(nodes: Mapping[int, Any]) -> dict[int, float]:
    """The sizes of numbers by which tensors are multiplied, as far as they are on the host."""
    found: dict[int, float] = {}
    for number, node in nodes.items():
        for name in SCALED.get(type(node).__name__, ()):
            value = getattr(node, f"_saved_{name}", None)
            if isinstance(value, Tensor):
                value = value.item() if value.ndim == 0 and value.is_cpu else None
            if isinstance(value, int | float):
                found[number] = abs(float(value))
    return found


def grown(now: Mapping[int, float], then: Mapping[int, float]) -> bool:
    """Whether some number is much larger than at the last check, where it may have hid others."""
    return any(value > GROWTH * then.get(number, 0.0) for number, value in now.items())


def same(first: Orders, second: Orders) -> bool:
    """Whether all indices are the same."""
    return first.keys() == second.keys() and all(
        len(own) == len(second[number])
        and all(torch.equal(a, b) for a, b in zip(own, second[number], strict=True))
        for number, own in first.items()
    )


def _between_rows(node: Any) -> bool:
    """Whether a node mixes the rows of a tensor by a matrix that needs no gradient."""
    (left, _), (right, _) = node.next_functions
    layer = type(right).__name__ in ("TBackward0", "AccumulateGrad")
    return left is None and not layer and node._saved_self is not None


def _counts(index: Tensor, examples: int) -> bool:
    """Whether an index takes from each example what goes to it, as arange(B) does."""
    if index.numel() != examples or index.dtype in (torch.bool, torch.uint8):
        return False
    return bool((index.reshape(-1) == torch.arange(examples, device=index.device)).all())

"""Which entries of its inputs an entry of an operation's output depends on.

Known for operations that move entries, put parts together, or act on each entry alone.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Positions = NDArray[np.int64]  # of entries of a tensor, counted in its order
LARGEST = 1 << 12  # tensors with more entries are not followed

IN_ORDER = {
    "Squeeze",
    "Unsqueeze",
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Clone",
    "ToCopy",
    "Alias",
}
ALONE = {
    *(
        "Add",
        "Sub",
        "Rsub",
        "Mul",
        "Div",
        "Neg",
        "Pow",
        "Exp",
        "Expm1",
        "Log",
        "Log1P",
        "Log2",
        "Log10",
        "Sqrt",
        "Rsqrt",
        "Reciprocal",
        "Abs",
        "Sign",
    ),
    *(
        "Relu",
        "LeakyRelu",
        "Elu",
        "Gelu",
        "Silu",
        "Mish",
        "Softplus",
        "Sigmoid",
        "LogSigmoid",
        "Tanh",
        "Sin",
        "Cos",
        "Clamp",
        "ClampMin",
        "ClampMax",
    ),
    *(
        "Hardtanh",
        "Maximum",
        "Minimum",
        "Where",
        "Lerp",
        "Addcmul",
        "Addcdiv",
        "Hypot",
        "NanToNum",
        "MaskedFill",
        "Threshold",
        "Erf",
    ),
}


def shape_of(node: Any, output: int) -> tuple[int, ...] | None:
    """The shape of an output; None where it is not known, or too large to follow."""
    try:
        found = (
            node.variable.shape if hasattr(node, "variable") else node._input_metadata[output].shape
        )
        shape = tuple(map(int, found))
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return None
    return shape if math.prod(shape) <= LARGEST else None


def kind_of(node: Any) -> str:
    """What made it, without the number of the variant."""
    return type(node).__name__.partition("Backward")[0]


def origins(node: Any, output: int, at: Positions) -> list[tuple[int, Positions]] | None:
    """The edges of a node, by number, and the entries there, that the entries `at` of an output depend on.

    None if that cannot be told.
    """
    kind, shape = kind_of(node), shape_of(node, output)
    edges = [
        (k, after, number)
        for k, (after, number) in enumerate(node.next_functions)
        if after is not None
    ]
    if shape is None or isinstance(
        node, torch._C._FunctionBase
    ):  # one written in Python may have any name
        return None
    if kind in JOINING:
        return JOINING[kind](node, shape, at)
    shapes = [shape_of(after, number) for _, after, number in edges]
    if any(s is None for s in shapes):
        return None
    known = [s for s in shapes if s is not None]
    try:
        if kind in ALONE:
            return [
                (k, np.unique(np.broadcast_to(_table(s), shape).reshape(-1)[at]))
                for (k, _, _), s in zip(edges, known, strict=True)
            ]
        if len(known) != 1:
            return None
        if kind in IN_ORDER:
            return [(edges[0][0], at)] if math.prod(known[0]) == math.prod(shape) else None
        if kind in REDUCING:
            return [(edges[0][0], _reduced(node, known[0], at))]
        if kind in MOVING:
            moved = MOVING[kind](node, _table(known[0]), output, shape)
            return (
                [(edges[0][0], np.unique(moved.reshape(-1)[at]))]
                if moved is not None and moved.size == math.prod(shape)
                else None
            )
    except (
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # something saved that this torch keeps otherwise
        return None
    return None


def _table(shape: tuple[int, ...]) -> Positions:
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def _signed(number: int) -> int:
    """Torch shows negative ones without sign."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _kept(node: Any, name: str) -> Any:
    """Saved index tensors, on the host; where they were handed to hooks, nothing is read."""
    raw = getattr(node, f"_raw_saved_{name}", None)
    if any(
        getattr(part, "unpack_hook", None) is not None
        for part in (raw if isinstance(raw, tuple | list) else (raw,))
    ):
        raise RuntimeError("not read")
    return getattr(node, f"_saved_{name}")


def _host(index: torch.Tensor) -> NDArray[Any]:
    return index.detach().cpu().numpy()


def _reduced(node: Any, shape: tuple[int, ...], at: Positions) -> Positions:
    dims = getattr(node, "_saved_dim", None)
    axes = tuple(
        _signed(d) % max(len(shape), 1)
        for d in ((dims,) if isinstance(dims, int) else dims or range(len(shape)))
    )
    left = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return np.flatnonzero(np.isin(np.broadcast_to(_table(left), shape).reshape(-1), at))


def _split(node: Any, table: Positions, output: int, _: tuple[int, ...]) -> Positions:
    axis, size = _signed(node._saved_dim), node._saved_split_size
    return np.take(table, range(output * size, min((output + 1) * size, table.shape[axis])), axis)


def _split_sizes(node: Any, table: Positions, output: int, _: tuple[int, ...]) -> Positions:
    sizes = [int(size) for size in node._saved_split_sizes]
    return np.take(
        table, range(sum(sizes[:output]), sum(sizes[: output + 1])), _signed(node._saved_dim)
    )


def _slice(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    start, end = (
        None if bound is None else _signed(bound) for bound in (node._saved_start, node._saved_end)
    )
    where = [slice(None)] * table.ndim
    where[_signed(node._saved_dim)] = slice(start, end, node._saved_step)
    return table[tuple(where)]


def _indexed(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    return table[
        tuple(slice(None) if index is None else _host(index) for index in _kept(node, "indices"))
    ]


def _gathered(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions | None:
    return table[_host(_kept(node, "index"))] if table.ndim == 1 else None


def _chosen(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions | None:
    mask = _host(_kept(node, "mask"))
    return table[mask] if mask.shape == table.shape else None


def _rolled(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    shifts, axes = tuple(map(_signed, node._saved_shifts)), tuple(map(_signed, node._saved_dims))
    return np.roll(table, shifts, axes) if axes else np.roll(table, shifts[0])


def _stacked(node: Any, shape: tuple[int, ...], at: Positions) -> list[tuple[int, Positions]]:
    axis = _signed(node._saved_dim) % len(shape)
    places = list(np.unravel_index(at, shape))
    parts = places.pop(axis)
    rest = shape[:axis] + shape[axis + 1 :]
    flat = np.ravel_multi_index(tuple(places), rest) if rest else np.zeros_like(at)
    return [(int(k), np.unique(flat[parts == k])) for k in np.unique(parts)]


def _concatenated(
    node: Any, shape: tuple[int, ...], at: Positions
) -> list[tuple[int, Positions]] | None:
    axis = _signed(node._saved_dim) % len(shape)
    sizes: list[int | None] = []
    for after, number in node.next_functions:
        part = None if after is None else shape_of(after, number)
        if after is not None and (part is None or len(part) != len(shape)):
            return None
        sizes.append(None if part is None else part[axis])
    constants = sizes.count(None)
    if constants:  # their sizes are not kept: known where one is left over, or one entry for each
        left = shape[axis] - sum(size for size in sizes if size is not None)
        if constants > 1 and left != constants:
            return None
        sizes = [left // constants if size is None else size for size in sizes]
    ends = np.cumsum([size or 0 for size in sizes])
    if ends[-1] != shape[axis]:
        return None
    places = list(np.unravel_index(at, shape))
    parts = np.searchsorted(ends, places[axis], side="right")
    found = []
    for k in np.unique(parts):
        size = int(sizes[k] or 0)
        inner = [place[parts == k] for place in places]
        inner[axis] = inner[axis] - (ends[k] - size)
        found.append(
            (
                int(k),
                np.unique(
                    np.ravel_multi_index(tuple(inner), (*shape[:axis], size, *shape[axis + 1 :]))
                ),
            )
        )
    return found


Moved = Callable[[Any, Positions, int, tuple[int, ...]], Positions | None]
MOVING: dict[str, Moved] = {
    "Select": lambda node, table, _, __: np.take(
        table, _signed(node._saved_index), _signed(node._saved_dim)
    ),
    "Unbind": lambda node, table, output, _: np.take(table, output, _signed(node._saved_dim)),
    "Split": _split,
    "SplitWithSizes": _split_sizes,
    "Slice": _slice,
    "T": lambda node, table, _, __: table.T,
    "Transpose": lambda node, table, _, __: table.swapaxes(
        _signed(node._saved_dim0), _signed(node._saved_dim1)
    ),
    "Permute": lambda node, table, _, __: table.transpose([_signed(d) for d in node._saved_dims]),
    "Expand": lambda node, table, _, shape: np.broadcast_to(table, shape),
    "Repeat": lambda node, table, _, __: np.tile(table, tuple(map(int, node._saved_repeats))),
    "Flip": lambda node, table, _, __: np.flip(table, tuple(_signed(d) for d in node._saved_dims)),
    "Roll": _rolled,
    "Diagonal": lambda node, table, _, __: np.diagonal(
        table, _signed(node._saved_offset), _signed(node._saved_dim1), _signed(node._saved_dim2)
    ),
    "Index": _indexed,
    "IndexSelect": lambda node, table, _, __: np.take(
        table, _host(_kept(node, "index")), _signed(node._saved_dim)
    ),
    "Gather": _gathered,
    "Take": lambda node, table, _, __: table.reshape(-1)[_host(_kept(node, "index"))],
    "MaskedSelect": _chosen,
}
JOINING: dict[
    str, Callable[[Any, tuple[int, ...], Positions], list[tuple[int, Positions]] | None]
] = {"Stack": _stacked, "Cat": _concatenated}
REDUCING = {"Sum", "Mean"}


def joins() -> Iterator[type]:
    """The kinds of nodes that put parts of one tensor together."""
    kinds = (
        "Stack",
        "Cat",
        "IndexPut",
        "IndexCopy",
        "IndexAdd",
        "Scatter",
        "ScatterAdd",
        "SelectScatter",
        "SliceScatter",
        "MaskedScatter",
        "BlockDiag",
    )
    for name in (
        "CopySlices",
        *(f"{kind}Backward{variant}" for kind in kinds for variant in (0, 1)),
    ):
        found = getattr(torch._C._functions, name, None)
        if found is not None:
            yield found

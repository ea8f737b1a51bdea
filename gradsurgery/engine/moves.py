"""Operations on one tensor that move its entries: which entry of it each output is.

Each function takes the node, the table of the input's entries (an array of its shape with their
numbers), the number of the output, and the output's shape. It gives the table of the output.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsurgery.engine.nodes import on_host, saved_indices, signed

Positions = NDArray[np.int64]  # of entries of a tensor, counted in its order
Move = Callable[[Any, Positions, int, tuple[int, ...]], Positions | None]


def _split(node: Any, table: Positions, output: int, _: tuple[int, ...]) -> Positions:
    axis, size = signed(node._saved_dim), node._saved_split_size
    return np.take(table, range(output * size, min((output + 1) * size, table.shape[axis])), axis)


def _split_sizes(node: Any, table: Positions, output: int, _: tuple[int, ...]) -> Positions:
    sizes = [int(size) for size in node._saved_split_sizes]
    places = range(sum(sizes[:output]), sum(sizes[: output + 1]))
    return np.take(table, places, signed(node._saved_dim))


def _slice(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    start, end = (
        None if bound is None else signed(bound) for bound in (node._saved_start, node._saved_end)
    )
    where = [slice(None)] * table.ndim
    where[signed(node._saved_dim)] = slice(start, end, node._saved_step)
    return table[tuple(where)]


def _indexed(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    indices = saved_indices(node, "indices")
    return table[tuple(slice(None) if index is None else on_host(index) for index in indices)]


def _gathered(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions | None:
    return table[on_host(saved_indices(node, "index"))] if table.ndim == 1 else None


def _masked(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions | None:
    mask = on_host(saved_indices(node, "mask"))
    return table[mask] if mask.shape == table.shape else None


def _rolled(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    shifts, axes = tuple(map(signed, node._saved_shifts)), tuple(map(signed, node._saved_dims))
    return np.roll(table, shifts, axes) if axes else np.roll(table, shifts[0])


def _selected(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    part: Positions = np.take(table, signed(node._saved_index), signed(node._saved_dim))
    return part


def _unbound(node: Any, table: Positions, output: int, _: tuple[int, ...]) -> Positions:
    part: Positions = np.take(table, output, signed(node._saved_dim))
    return part


def _transposed(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    return table.swapaxes(signed(node._saved_dim0), signed(node._saved_dim1))


def _permuted(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    return table.transpose([signed(d) for d in node._saved_dims])


def _repeated(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    return np.tile(table, tuple(map(int, node._saved_repeats)))


def _flipped(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    flipped: Positions = np.flip(table, tuple(signed(d) for d in node._saved_dims))
    return flipped


def _diagonal(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    axes = signed(node._saved_dim1), signed(node._saved_dim2)
    return np.diagonal(table, signed(node._saved_offset), *axes)


def _index_selected(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    return np.take(table, on_host(saved_indices(node, "index")), signed(node._saved_dim))


def _taken(node: Any, table: Positions, _: int, __: tuple[int, ...]) -> Positions:
    part: Positions = table.reshape(-1)[on_host(saved_indices(node, "index"))]
    return part


MOVES: dict[str, Move] = {
    "Select": _selected,
    "Unbind": _unbound,
    "Split": _split,
    "SplitWithSizes": _split_sizes,
    "Slice": _slice,
    "T": lambda node, table, _, __: table.T,
    "Transpose": _transposed,
    "Permute": _permuted,
    "Expand": lambda node, table, _, shape: np.broadcast_to(table, shape),
    "Repeat": _repeated,
    "Flip": _flipped,
    "Roll": _rolled,
    "Diagonal": _diagonal,
    "Index": _indexed,
    "IndexSelect": _index_selected,
    "Gather": _gathered,
    "Take": _taken,
    "MaskedSelect": _masked,
}

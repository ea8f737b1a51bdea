"""Which entries of its inputs an entry of an operation's output depends on.

Known for operations that move entries, put parts together, or act on each entry alone.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradsurgery.engine.moves import MOVES, Positions
from gradsurgery.engine.nodes import is_python, kind_of, shape_of, signed

Shape = tuple[int, ...]
Origins = list[tuple[int, Positions]]  # edges of a node, by number, and the entries there
VIEWS = "Squeeze Unsqueeze View UnsafeView ReshapeAlias Clone ToCopy Alias"
IN_ORDER = {*VIEWS.split()}
ARITHMETIC = "Add Sub Rsub Mul Div Neg Pow Lerp Addcmul Addcdiv Abs Sign Maximum Minimum Where"
FUNCTIONS = "Exp Expm1 Log Log1P Log2 Log10 Sqrt Rsqrt Reciprocal Sin Cos Erf Hypot"
ACTIVATIONS = "Relu LeakyRelu Elu Gelu Silu Mish Softplus Sigmoid LogSigmoid Tanh Hardtanh"
LIMITS = "Clamp ClampMin ClampMax NanToNum MaskedFill Threshold"
ALONE = {*f"{ARITHMETIC} {FUNCTIONS} {ACTIVATIONS} {LIMITS}".split()}
REDUCING = {"Sum", "Mean"}
# What a torch that saves something else under these names raises.
UNREADABLE = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)


def origins(node: Any, output: int, at: Positions) -> Origins | None:
    """What the entries `at` of a node's output depend on; None if that cannot be known."""
    kind, shape = kind_of(node), shape_of(node, output)
    if shape is None or is_python(node):
        return None
    if kind in JOINING:
        return JOINING[kind](node, shape, at)
    edges = [(k, edge) for k, edge in enumerate(node.next_functions) if edge[0] is not None]
    shapes: list[Shape] = []
    for _, (after, number) in edges:
        found = shape_of(after, number)
        if found is None:
            return None
        shapes.append(found)
    try:
        if kind in ALONE:
            tables = [np.broadcast_to(_table(s), shape).reshape(-1) for s in shapes]
            pairs = zip(edges, tables, strict=True)
            return [(k, np.unique(table[at])) for (k, _), table in pairs]
        if len(shapes) != 1:
            return None
        ((k, _),), (inside,) = edges, shapes
        if kind in IN_ORDER:
            return [(k, at)] if math.prod(inside) == math.prod(shape) else None
        if kind in REDUCING:
            return [(k, _reduced(node, inside, at))]
        if kind in MOVES:
            moved = MOVES[kind](node, _table(inside), output, shape)
            if moved is not None and moved.size == math.prod(shape):
                return [(k, np.unique(moved.reshape(-1)[at]))]
    except UNREADABLE:
        return None
    return None


def _table(shape: Shape) -> Positions:
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def _reduced(node: Any, shape: Shape, at: Positions) -> Positions:
    dims = getattr(node, "_saved_dim", None)
    given = (dims,) if isinstance(dims, int) else dims or range(len(shape))
    axes = tuple(signed(d) % max(len(shape), 1) for d in given)
    left = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return np.flatnonzero(np.isin(np.broadcast_to(_table(left), shape).reshape(-1), at))


def _stacked(node: Any, shape: Shape, at: Positions) -> Origins:
    axis = signed(node._saved_dim) % len(shape)
    places = list(np.unravel_index(at, shape))
    parts = places.pop(axis)
    rest = shape[:axis] + shape[axis + 1 :]
    flat = np.ravel_multi_index(tuple(places), rest) if rest else np.zeros_like(at)
    return [(int(k), np.unique(flat[parts == k])) for k in np.unique(parts)]


def _concatenated(node: Any, shape: Shape, at: Positions) -> Origins | None:
    axis = signed(node._saved_dim) % len(shape)
    sizes = _sizes_along(node, axis, shape)
    if sizes is None:
        return None
    ends = np.cumsum(sizes)
    if ends[-1] != shape[axis]:
        return None
    places = list(np.unravel_index(at, shape))
    parts = np.searchsorted(ends, places[axis], side="right")
    found = []
    for k in np.unique(parts):
        inner = [place[parts == k] for place in places]
        inner[axis] = inner[axis] - (ends[k] - sizes[k])
        own = (*shape[:axis], sizes[k], *shape[axis + 1 :])
        found.append((int(k), np.unique(np.ravel_multi_index(tuple(inner), own))))
    return found


def _sizes_along(node: Any, axis: int, shape: Shape) -> list[int] | None:
    """The sizes of the parts of a concatenation; None where they are not known.

    Those of constants are not kept. They are known where one is left over, or one entry for each.
    """
    sizes: list[int | None] = []
    for after, number in node.next_functions:
        part = None if after is None else shape_of(after, number)
        if after is not None and (part is None or len(part) != len(shape)):
            return None
        sizes.append(None if part is None else part[axis])
    constants = sizes.count(None)
    left = shape[axis] - sum(size for size in sizes if size is not None)
    if constants > 1 and left != constants:
        return None
    return [left // constants if size is None else size for size in sizes]


JOINING: dict[str, Callable[[Any, Shape, Positions], Origins | None]] = {
    "Stack": _stacked,
    "Cat": _concatenated,
}

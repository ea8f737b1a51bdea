"""Losses that were joined into one tensor: which part of it each comes from."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gradsurgery.engine.elements import JOINING, origins
from gradsurgery.engine.graph import JOINS, Graph, Output
from gradsurgery.engine.moves import Positions
from gradsurgery.engine.nodes import kind_of, shape_of

FOLLOWED = 64  # nodes that are followed from one loss, the nearest first
FEW = 64  # entries of a tensor of losses, and nodes within one, where joins are searched for
WARNING = (
    "losses {} were computed from one tensor, into which parts that reach different parameters "
    "had been joined. Which part each depends on cannot be known, so that each counts as reaching "
    "all of these parameters, and heads join the trunk's group. Give the losses in a list or dict, "
    "as they were before they were joined, and your own weights as weights=."
)
Stops = dict[Any, dict[int, tuple[int, bytes]]]  # node -> loss -> the output and entries it takes


def may_be_joined(graph: Graph, count: int) -> bool:
    """Whether something small was joined in the graph of several losses."""
    return count > 1 and any(shape_of(node, 0) is not None for node in graph.joins)


def separated(
    losses: Sequence[Tensor], names: Sequence[str], graph: Graph, cuts: Iterable[Output]
) -> tuple[dict[int, list[Output]], str]:
    """Where losses come from, in a graph in which tensors were joined.

    Args:
        losses: the losses.
        names: of their objectives.
        graph: their graph.
        cuts: the outputs at which the graph ends.

    Returns:
        The outputs that a loss depends on, by the loss's position, for those that take part of
        something that was joined. And what to warn of where losses cannot be separated, or "".
    """
    ends, stops = frozenset(cuts), Stops()
    found = {i: _start_of(i, loss, ends, stops) for i, loss in enumerate(losses)}
    starts = {i: start for i, start in found.items() if start is not None}
    return starts, _warning(names, graph, stops)


def _start_of(i: int, loss: Tensor, ends: Collection[Output], stops: Stops) -> list[Output] | None:
    """The outputs that one loss depends on, when it takes part of something that was joined.

    Args:
        i: the loss's position.
        loss: the loss.
        ends: outputs to stop at.
        stops: gets the nodes at which it could not be followed further.
    """
    found: dict[Output, None] = {}
    narrowed = False
    queue: deque[tuple[Any, int, Positions]] = deque(
        [(loss.grad_fn, loss.output_nr, np.zeros(1, np.int64))]
    )
    visited: set[tuple[Any, int, bytes]] = set()
    while queue:
        node, output, at = queue.popleft()
        if node is None or (node, output, at.tobytes()) in visited:
            continue
        visited.add((node, output, at.tobytes()))
        end = (node, output) in ends or len(visited) > FOLLOWED or not _may_join_losses(node)
        before = None if end else origins(node, output, at)
        if before is None:
            found[node, output] = None
            stops.setdefault(node, {})[i] = output, at.tobytes()
            continue
        if kind_of(node) in JOINING and len(before) < len(node.next_functions):
            narrowed = True
        queue.extend((*node.next_functions[k], positions) for k, positions in before)
    return list(found) if narrowed else None


def _may_join_losses(node: Any) -> bool:
    """Whether a node that joins has parts as losses are: scalars, one number per example, or both.

    Features of a batch are left joined: a hook on them may act across the parts, and does not show.
    """
    if kind_of(node) not in JOINING:
        return True
    parts = [edge for edge in node.next_functions if edge[0] is not None]
    pairs = zip(parts, [shape_of(*edge) for edge in parts], strict=True)
    return all(
        shape is not None and (len(shape) <= 1 or np.prod(shape) == 1 or kind_of(part) in JOINING)
        for (part, _), shape in pairs
    )


def _warning(names: Sequence[str], graph: Graph, stops: Mapping[Any, Any]) -> str:
    for node, by_loss in stops.items():
        different = len(set(by_loss.values())) > 1
        if different and any(_differ(join, graph) for join in _joins_within(node)):
            listed = dict.fromkeys(repr(names[i]) for i in by_loss)
            return WARNING.format(", ".join(listed))
    return ""


def _joins_within(start: Any) -> list[Any]:
    """What was joined at a node or, in small tensors, in what it was computed from."""
    found, visited, stack = [], {start}, [start]
    while stack and len(visited) < FEW:
        node = stack.pop()
        if type(node) in JOINS:
            found.append(node)
        for after, output in node.next_functions:
            if after is not None and after not in visited and _entries(after, output) <= FEW:
                visited.add(after)
                stack.append(after)
    return found


def _differ(join: Any, graph: Graph) -> bool:
    """Whether parts of one entry were joined that reach different parameters."""
    edges = [edge for edge in join.next_functions if edge[0] is not None]
    singles = [_entries(*edge) == 1 for edge in edges]
    if len(edges) < 2 or not (all(singles) if kind_of(join) in JOINING else any(singles)):
        return False
    reaches = [graph.leaves_from(node) for node, _ in edges]
    return any(reach != reaches[0] for reach in reaches)


def _entries(node: Any, output: int) -> int:
    shape = shape_of(node, output)
    return FEW + 1 if shape is None else int(np.prod(shape, dtype=np.int64))

"""Losses that were joined into one tensor: which part of it each comes from."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gradsurgery.engine.elements import JOINING, origins
from gradsurgery.engine.graph import JOINS, Graph, Output
from gradsurgery.engine.moves import Positions
from gradsurgery.engine.nodes import kind_of, shape_of

FOLLOWED = 64  # nodes that are followed from one loss, the nearest first
FEW = 64  # entries of a tensor of losses, and nodes below one, where joins are searched for
WARNING = (
    "losses {} were computed from one tensor, into which parts that reach different parameters "
    "had been joined. Which part each depends on cannot be told, so that each counts as reaching "
    "all of these parameters, and heads join the trunk's group. Give the losses in a list or dict, "
    "as they were before they were joined, and your own weights as weights=."
)


class Joined:
    """Where losses come from, in a graph in which tensors were joined.

    Attributes:
        starts: the outputs that a loss depends on, by the loss's position, for those that take part
            of something that was joined.
        warning: what to say where losses cannot be told apart; empty otherwise.
    """

    def __init__(
        self, losses: Sequence[Tensor], names: Sequence[str], graph: Graph, cuts: Iterable[Output]
    ) -> None:
        self._graph, self._cuts = graph, frozenset(cuts)
        self._stops: dict[Any, dict[int, tuple[int, bytes]]] = {}
        found = [self._of(i, loss) for i, loss in enumerate(losses)]
        self.starts = {i: start for i, start in enumerate(found) if start is not None}
        self.warning = self._warning(names)

    def _of(self, i: int, loss: Tensor) -> list[Output] | None:
        """The outputs that one loss depends on, when it takes part of something that was joined."""
        found: dict[Output, None] = {}
        narrowed = False
        queue: deque[tuple[Any, int, Positions]] = deque(
            [(loss.grad_fn, loss.output_nr, np.zeros(1, np.int64))]
        )
        seen: set[tuple[Any, int, bytes]] = set()
        while queue:
            node, output, at = queue.popleft()
            if node is None or (node, output, at.tobytes()) in seen:
                continue
            seen.add((node, output, at.tobytes()))
            end = (node, output) in self._cuts or len(seen) > FOLLOWED or not _may_join_losses(node)
            before = None if end else origins(node, output, at)
            if before is None:
                found[node, output] = None
                self._stops.setdefault(node, {})[i] = output, at.tobytes()
                continue
            narrowed = narrowed or (
                kind_of(node) in JOINING and len(before) < len(node.next_functions)
            )
            queue.extend((*node.next_functions[k], positions) for k, positions in before)
        return list(found) if narrowed else None

    def _warning(self, names: Sequence[str]) -> str:
        for node, by_loss in self._stops.items():
            if len(set(by_loss.values())) > 1 and any(
                self._differ(join) for join in self._below(node)
            ):
                return WARNING.format(
                    ", ".join(repr(name) for name in dict.fromkeys(names[i] for i in by_loss))
                )
        return ""

    def _below(self, start: Any) -> list[Any]:
        """What was joined at a node or, in small tensors, below it."""
        found, seen, stack = [], {start}, [start]
        while stack and len(seen) < FEW:
            node = stack.pop()
            if type(node) in JOINS:
                found.append(node)
            for after, output in node.next_functions:
                if after is not None and after not in seen and _entries(after, output) <= FEW:
                    seen.add(after)
                    stack.append(after)
        return found

    def _differ(self, join: Any) -> bool:
        """Whether parts of one entry were joined that reach different parameters."""
        edges = [edge for edge in join.next_functions if edge[0] is not None]
        singles = [_entries(*edge) == 1 for edge in edges]
        if len(edges) < 2 or not (all(singles) if kind_of(join) in JOINING else any(singles)):
            return False
        reaches = [self._graph.leaves_from(node) for node, _ in edges]
        return any(reach != reaches[0] for reach in reaches)


def _may_join_losses(node: Any) -> bool:
    """Whether a node that joins has parts as losses are: scalars, one number per example, or such stacks again.

    Features of a batch are left joined: a hook on them may act across the parts, and does not show.
    """
    if kind_of(node) not in JOINING:
        return True
    parts = [edge for edge in node.next_functions if edge[0] is not None]
    shapes = [shape_of(*edge) for edge in parts]
    pairs = zip(parts, shapes, strict=True)
    return all(
        shape is not None and (len(shape) <= 1 or np.prod(shape) == 1 or kind_of(part) in JOINING)
        for (part, _), shape in pairs
    )


def _entries(node: Any, output: int) -> int:
    shape = shape_of(node, output)
    return FEW + 1 if shape is None else int(np.prod(shape, dtype=np.int64))


def may_be_joined(graph: Graph, count: int) -> bool:
    """Whether something small was joined in the graph of several losses."""
    return count > 1 and any(shape_of(node, 0) is not None for node in graph.joins)

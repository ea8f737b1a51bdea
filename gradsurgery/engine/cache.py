"""The cache of the step before: one trace, known again by one explicit key."""

from collections.abc import Mapping
from typing import Any

from gradsurgery.engine.graph import Graph
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.trace import Trace


class TraceCache:
    """What a Surgery knows of its last step's graph, to know it again.

    `find` alone decides whether the last trace holds for a step: if its key is the same. Ids are
    compared of objects that this cache holds, so that no other object can have them.

    Attributes:
        separate: what a graph was like in which joined tensors hid nothing.
        warned: the warnings given so far, each of which is given once.
        verified: the weights of factored layers whose gradient was compared with autograd's own,
            and whether both agreed.
        batched_left: whether a batched pass may have left gradients in activations.
    """

    def __init__(self) -> None:
        self.separate: Any = None
        self.warned: set[str] = set()
        self.verified: dict[str, bool] = {}
        self.batched_left = True
        self._key: tuple[Any, ...] | None = None
        self._held: tuple[Any, ...] = ()
        self.trace: Trace | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has tensors of its own, under other ids: it knows no trace."""
        return {"warned": self.warned}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # begin as a new one
        self.warned = set(saved["warned"])

    def find(self, key: tuple[Any, ...], before: Reach) -> Trace | None:
        """The trace of the last step, if it holds for a step with this key, else None.

        Args:
            key: `key_of` the step.
            before: the reach of the steps before.
        """
        trace = self.trace
        if trace is None or key != self._key:
            return None
        return trace if before is trace.before or before is trace.grouping[1] else None

    def keep(self, key: tuple[Any, ...] | None, held: tuple[Any, ...], trace: Trace) -> None:
        """Replace what was known; with the key None there is nothing to know the trace by."""
        self._key, self._held, self.verified = key, held, {}
        self.trace = trace if key is not None else None
        self.batched_left = True


def key_of(given: Mapping[int, Any], known: Mapping[int, Any], losses: Losses, graph: Graph) -> Any:
    """By what a step is known again: parameters given and found, losses, and the graph's leaves.

    None where a loss reaches a leaf possibly, and not certainly.
    """
    at = graph.at.values()
    possible = [graph.possible[k] for k in at]
    if graph.regions and possible != [graph.certain[k] for k in at]:
        return None
    counts = len(losses.tensors), len(graph.joins)
    return id(given), id(known), losses.names, *counts, tuple(graph.leaves), possible

"""The cache of the step before: one trace, known again by one explicit key."""

from collections.abc import Mapping
from typing import Any

from gradsurgery.engine.graph import Graph
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.per_example.known import Plans
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.trace import Trace

Key = tuple[Any, ...]


class TraceCache:
    """What a Surgery knows of its last step's graph, to know it again.

    `find` alone decides whether the last trace holds for a step: if its key is the same. Ids are
    compared of objects that this cache holds, so that no other object can have them.

    Attributes:
        separate: what a graph was like in which joined tensors hid nothing.
        warned: the warnings given so far, each of which is given once.
        verified: the weights of factored layers whose gradient was compared with autograd's own,
            and whether both agreed.
        examples: what is known of graphs of which per-example losses were the roots.
        batched_left: whether a batched pass may have left gradients in activations.
    """

    def __init__(self) -> None:
        self.separate: Any = None
        self.warned: set[str] = set()
        self.verified: dict[str, bool] = {}
        self.batched_left = True
        self.examples = Plans()
        self._key: Key | None = None
        self._held: tuple[Any, ...] = ()
        self.trace: Trace | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has tensors of its own, under other ids: it knows no trace."""
        return {"warned": self.warned}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(vars(TraceCache()), warned=set(saved["warned"]))

    def find(self, key: Key | None, before: Reach) -> Trace | None:
        """The trace of the last step, if it holds for a step with this key, else None.

        Args:
            key: `key_of` the step.
            before: the reach of the steps before.
        """
        trace = self.trace
        if trace is None or key is None or key != self._key:
            return None
        return trace if before is trace.before or before is trace.grouping[1] else None

    def keep(self, key: Key | None, trace: Trace, *held: Any) -> None:
        """Know a step by its key.

        Args:
            key: `key_of` the step; with None there is nothing to know it by.
            trace: its trace.
            *held: what has ids in the key, beside the leaves that the trace holds.
        """
        self._key, self._held = key, held
        self.trace = None if key is None else trace
        self.verified, self.batched_left = {}, True

    def drop(self) -> None:
        """Forget the last trace: this step is not to be known again."""
        self._key, self._held, self.trace = None, (), None
        self.verified, self.batched_left = {}, True


def key_of(
    given: Mapping[int, Any], known: Mapping[int, Any], losses: Losses, graph: Graph
) -> Key | None:
    """By what a step is known again; None where a loss reaches a leaf possibly, not certainly.

    That is the parameters given, and found without being given, the losses, and the graph's leaves
    with the losses that reach each.

    Args:
        given: the given parameters by id; the same dict as long as none has changed.
        known: those found, alike.
        losses: the losses.
        graph: their graph.
    """
    possible = [graph.possible[k] for k in graph.at.values()]
    if graph.regions and possible != [graph.certain[k] for k in graph.at.values()]:
        return None
    counts = len(losses.tensors), len(graph.joins)
    return id(given), id(known), losses.names, *counts, tuple(graph.leaves), possible

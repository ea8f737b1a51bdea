"""Which layers are tapped over ranks: what each rank can, and what all do, by counting bytes.

A rank proposes before the step is agreed on, so that a digest travels with what is agreed anyway.
Only where proposals differ, as for uneven batches or a hook on one rank, all say what they have.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradsurgery.engine.graph import Graph
from gradsurgery.engine.parallel.agreement import digest_of
from gradsurgery.engine.parallel.wire import Wire
from gradsurgery.engine.taps import candidates
from gradsurgery.engine.trace import Trace
from gradsurgery.gradients.factored import Tap
from gradsurgery.gradients.rules.linear import Linear

NOT_HERE = -1  # in place of a number of rows: the weight is reached, and its layer not tapped


class Tapping:
    """The layers that one rank could tap in a step, and those that all of them do.

    Args:
        found: the layers that this rank can tap.
        trace: what this rank's losses reach.
        graph: theirs.
        every: take all that are found, however many bytes that saves.
        world: how many ranks there are.
    """

    def __init__(
        self, found: Mapping[str, Tap], trace: Trace, graph: Graph, every: bool, world: int
    ) -> None:
        self._found, self._graph, self._every, self._world = found, graph, every, world
        own = {n: [rows_of(found[n])] for n in candidates(trace, every) if n in found}
        self._own = self._chosen(trace, own)

    @property
    def digest(self) -> int:
        """A number for the layers and their rows; 0 for none."""
        return digest_of(sorted(self._own.items())) if self._own else 0

    def agreed(
        self, wire: Wire, trace: Trace, alike: bool
    ) -> tuple[dict[str, Tap], dict[str, int]]:
        """This rank's layers among those that all tap, and by name the most rows of a rank.

        A rank whose losses do not reach a weight has no rows, and no layer.

        Args:
            wire: the ranks.
            trace: what the losses of all reach.
            alike: whether all proposed the same.
        """
        if alike:
            return {name: self._found[name] for name in self._own}, self._own
        found = self._found
        names = candidates(trace, self._every)
        said = wire.integers([self._said(found.get(n), t) for n, t in names.items()])
        rows = self._chosen(trace, dict(zip(names, zip(*said, strict=True), strict=True)))
        return {name: found[name] for name in rows if name in found}, rows

    def _said(self, tap: Tap | None, weight: Tensor) -> int:
        if tap is not None:
            return rows_of(tap)
        return NOT_HERE if id(weight) in self._graph.leaves else 0

    def _chosen(self, trace: Trace, said: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """The weights to be tapped, and the most rows of a rank, from the rows of each rank."""
        found = {}
        for name, rows in said.items():
            most, n = max(rows), trace.reach.count(name)
            if most > 0 and min(rows) >= 0:
                out, inside = trace.tensors[name].shape
                if self._every or half_the_bytes(most, out, inside, n, self._world):
                    found[name] = most
        return found


def rows_of(tap: Tap) -> int:
    """How many rows of input a linear layer has here."""
    assert isinstance(tap.layer, Linear)
    return len(tap.layer.inputs)


def half_the_bytes(rows: int, out: int, inside: int, n: int, world: int) -> bool:
    """Whether the factors of n objectives take at most half the bytes of gradients and direction.

    Both count what W - 1 ranks are sent: of n gradients and one direction each rank's share, and
    of the factors all rows of every rank.
    """
    # Up to half the bytes a rank computes no longer either, at the same bytes up to half more.
    return 2 * world * rows * (inside + n * out) <= (n + 1) * out * inside

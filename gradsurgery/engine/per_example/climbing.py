"""Parameters that no example uses itself: what is computed from them is used, once for all.

Such are positions `table(arange(T))`, slices of a parameter, and weights that are normed. Nothing
that arrives at their own node belongs to single examples. From there the graph is climbed to the
nodes where examples come in, by adding, multiplying or a layer: these use a tensor that stands for
the parameter.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from typing import Any

from gradsurgery.engine.per_example.plan import Place, Plan
from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.rules import RULES, SHARED

Above = Mapping[int, list[tuple[int, int, int]]]  # node -> those it leads to: node, edge, output

LEVELS = 8  # that are climbed


def watched(starts: Iterable[Place], size: int, nodes: Mapping[int, Any], above: Above) -> set[int]:
    """The nodes at which examples may come in, and those on the way.

    Args:
        starts: the uses of a parameter.
        size: its number of entries.
        nodes: number -> node.
        above: the graph's edges, from below.
    """
    found: set[int] = set()
    level = {place.node for place in starts if _unclear(nodes[place.node], size)}
    for _ in range(LEVELS):
        higher: set[int] = set()
        for child in level:
            for parent, _, _ in above.get(child, ()):
                if parent not in found:
                    found.add(parent)
                    if _goes_on(nodes[parent], nodes[child]):
                        higher.add(parent)
        level = higher
    return found


def climbed(
    places: Iterable[Place], shared: Collection[int], given: Collection[int], above: Above
) -> list[Place] | None:
    """The uses of what stands for a parameter; None where they are not all known.

    Args:
        places: the parameter's own.
        shared: the nodes at whose outputs nothing belongs to single examples.
        given: the nodes at which gradients have arrived.
        above: the graph's edges, from below.
    """
    found = [place for place in places if place.node not in shared]
    stack = [place.node for place in places if place.node in shared]
    known = set(stack)
    while stack:
        child = stack.pop()
        parents = above.get(child, ())
        if not parents:
            return None
        for parent, edge, output in parents:
            if parent not in given:
                return None
            if parent not in shared:
                found.append(Place(parent, edge, through=(child, output)))
            elif parent not in known:
                known.add(parent)
                stack.append(parent)
    return found


def broadcast(numbers: Iterable[int], nodes: Mapping[int, Any], plan: Plan) -> set[int]:
    """The nodes whose output is the same for all examples, by shapes and guessed layouts.

    It is added to or multiplied with what has examples where it has one entry, or no dimension.

    Args:
        numbers: of the nodes asked about.
        nodes: number -> node.
        plan: with layouts.
    """
    found: set[int] = set()
    while True:
        more = {
            number
            for number in numbers
            if number not in found
            and (parents := plan.above.get(number))
            and all(
                p in found or _spread(nodes[p], nodes[number], o, plan.layouts.get(p))
                for p, _, o in parents
            )
        }
        if not more:
            return found
        found |= more


def _spread(node: Any, below: Any, output: int, where: Sequence[Layout | None] | None) -> bool:
    if type(node).__name__ not in SHARED or not where or where[0] is None:
        return False
    whole, own = node._input_metadata[0].shape, below._input_metadata[output].shape
    aligned = (*[1] * (len(whole) - len(own)), *own)
    dim = where[0].dim
    return bool(aligned[dim] == 1 and whole[dim] != 1)


def _unclear(node: Any, size: int) -> bool:
    """Whether a node that uses a parameter of this size may do so once for all examples."""
    kind = type(node).__name__
    if kind in SHARED:
        return _size(node) <= size
    return kind not in RULES or kind == "EmbeddingBackward0"


def _goes_on(node: Any, below: Any) -> bool:
    kind = type(node).__name__
    return kind not in RULES or (kind in SHARED and _size(node) <= _size(below))


def _size(node: Any) -> int:
    metadata = getattr(node, "_input_metadata", None)
    return prod(metadata[0].shape) if metadata else 0

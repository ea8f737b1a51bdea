"""The plan of a pass: which node uses which parameter, known again where the graph is the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradsurgery.engine.graph import ACCUMULATE, Graph
from gradsurgery.engine.per_example.orders import Orders
from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.rules import FORMS

SEVERAL = "it is used several times, not always in a layer that is known"

HOOKED = "a hook acts on its gradient"
EVERY = 64  # steps between checks at most: three passes more in 64 steps


@dataclass(frozen=True)
class Place:
    """One use of a parameter in the graph.

    Attributes:
        node: the number of the node that uses it.
        edge: the node's edge that leads to it.
        forms: the kinds of the nodes between them.
        last: the number of the one of these that is next to the node.
        through: the node and its output that the node uses in place of the parameter, from which
            alone it is computed.
    """

    node: int
    edge: int
    forms: tuple[str, ...] = ()
    last: int | None = None
    through: tuple[int, int] | None = None


@dataclass
class Plan:
    """What is known of a graph, by numbers of its nodes.

    Attributes:
        places: parameter -> its uses.
        above: the graph's edges: node -> the nodes, edges and outputs by which it is used.
        passes: those that get a pass per objective, and why.
        layouts: node -> the layout of each of its outputs, as far as they were found; features by
            name.
        proved: whether examples were found to be independent.
        unsure: node or feature -> the layouts that each gradient there fitted then, where these are
            several; none where one was zero, of which nothing is known until it gets another.
        gates: the parameters that were zero then: what lies before them got no gradient.
        orders: node -> the indices by which it picked or moved entries then.
        scales: node -> the size of the number that it multiplied with then.
        steps: how many there were with this plan.
        open: whether an example may come to act on others: then every step is checked.
        seen: whether there was a step with this plan, so that `local` is known.
        local: whether some node's own backward is called, which needs the graph after the pass.
    """

    places: dict[str, list[Place]]
    above: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    passes: dict[str, str] = field(default_factory=dict)
    layouts: dict[int | str, list[Layout | None]] = field(default_factory=dict)
    proved: bool = False
    unsure: dict[int | str, list[list[Layout]]] = field(default_factory=dict)
    gates: set[str] = field(default_factory=set)
    orders: Orders = field(default_factory=dict)
    scales: dict[int, float] = field(default_factory=dict)
    steps: int = 0
    open: bool = False
    seen: bool = False
    local: bool = False

    def nodes(self, numbered: Mapping[int, Any]) -> dict[int, Any]:
        """The nodes that a pass listens to."""
        return {p.node: numbered[p.node] for places in self.places.values() for p in places}

    def rename(self, names: Mapping[str, str]) -> None:
        """Have what is known under other names."""
        self.places = {names[name]: places for name, places in self.places.items()}
        self.passes = {names[name]: why for name, why in self.passes.items()}
        self.gates = {names[name] for name in self.gates}
        now: dict[Any, Any] = {**names}  # numbers of nodes stay
        self.unsure = {now.get(key, key): fitting for key, fitting in self.unsure.items()}
        self.layouts = {now.get(key, key): layouts for key, layouts in self.layouts.items()}

    @property
    def due(self) -> bool:
        """Whether a check is due after so many steps: after 4, 8, ... 64, then every 64."""
        if self.steps >= EVERY:
            return self.steps % EVERY == 0
        return self.steps >= 4 and self.steps & (self.steps - 1) == 0

    def give_up(self, name: str, why: str) -> None:
        """Give a parameter a pass per objective."""
        del self.places[name]
        self.passes[name] = why


def numbered(graph: Graph) -> dict[int, Any]:
    """The graph's nodes by their numbers."""
    return {number: node for node, number in graph.numbers.items()}


def plan_of(graph: Graph, tensors: Mapping[str, Tensor]) -> Plan:
    """The uses of each parameter, as far as each is a node's of its own.

    Args:
        graph: that of the losses.
        tensors: the parameters by name, without features.
    """
    nodes = numbered(graph)
    plan = Plan({})
    for number, node in nodes.items():
        for edge, (after, output) in enumerate(node.next_functions):
            if after is not None and (target := graph.numbers.get(after)) is not None:
                plan.above.setdefault(target, []).append((number, edge, output))
    at = {id(node.variable): k for k, node in nodes.items() if type(node) is ACCUMULATE}
    for name, tensor in tensors.items():
        start = at.get(id(tensor))
        if start is None or start not in plan.above:
            plan.passes[name] = "it is a loss itself"
            continue
        places = _places(start, nodes, plan.above)
        if tensor.is_complex() or not places:
            plan.passes[name] = "it is complex"
        else:
            plan.places[name] = places
    return plan


def _places(
    start: int, nodes: Mapping[int, Any], above: Mapping[int, list[tuple[int, int, int]]]
) -> list[Place]:
    found: list[Place] = []
    stack: list[tuple[int, tuple[str, ...], int | None]] = [(start, (), None)]
    while stack:
        number, forms, last = stack.pop()
        for parent, edge, _ in above.get(number, ()):
            kind = type(nodes[parent]).__name__
            if kind in FORMS and parent in above:
                stack.append((parent, (*forms, kind), parent))
            else:
                found.append(Place(parent, edge, forms, last))
    return found

"""The losses' graph, walked once: which losses reach each leaf, and how often each node is used."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.compiled import COMPILED, allows_one_pass
from gradsurgery.engine.nodes import joins
from gradsurgery.errors import InputError

Output = tuple[Any, int]  # a node and which of its outputs
ACCUMULATE = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]  # the stubs lack it
WRITTEN_IN_PYTHON = torch._C._FunctionBase
JOINS = frozenset(joins())
WITHOUT_CLASS = "CppFunction"  # nodes that C++ code has added, without a class for each kind
SCRIPTED = (
    "DifferentiableGraph"  # a TorchScript region; it gives zeros to what a loss does not reach
)
SINK = "_DDPSinkBackward"  # what DDP puts all outputs through: each goes its own way
PICKS, STACK = ("UnbindBackward0", "SelectBackward0"), "StackBackward0"
ORDINARY: set[type] = set()  # torch's own kinds of nodes seen so far: nothing is special about them


class Graph:
    """What a walk found.

    Nodes have numbers, and so have leaves that are losses themselves. The lists below are by
    number. Losses are bits: the i-th has bit i.

    Attributes:
        numbers: node -> number. Every node of the graph is in it.
        uses: how many edges lead to a node.
        targets: the numbers that a node's edges lead to.
        possible: the losses that reach it, certainly or possibly.
        certain: the losses that certainly do. A region that torch.compile made is one node, which
            gives zeros to what a loss does not reach: past it a loss may reach something or not.
        leaves: the leaf tensors by id, in the order found.
        at: the number of each leaf, by id.
        cuts: the number of each output where the walk ended, by position.
        single_pass: whether a compiled region allows one backward pass only.
        sharded: whether FSDP2 gathers parameters and scatters their gradients within the graph.
        passes: makes backward passes on FSDP2's own machinery, where gradients need it: from
            losses, roots, per pass the places of its losses with what it asks for, and whether the
            graph is kept. None where `torch.autograd.grad` gives them.
        written: the nodes of functions that are written in Python, but for those that torch makes.
        joins: the nodes where tensors were put together.
        sinks: the nodes through which DDP puts all outputs of a model.
    """

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}
        self.uses: list[int] = []
        self.targets: list[list[int]] = []
        self.possible: list[int] = []
        self.certain: list[int] = []
        self.regions: set[int] = set()
        self.leaves: dict[int, Tensor] = {}
        self.at: dict[int, int] = {}
        self.cuts: dict[int, int] = {}
        self.single_pass = False
        self.sharded = False
        self.passes: Callable[..., list[dict[str, Tensor]]] | None = None
        self.written: list[Any] = []
        self.joins: list[Any] = []
        self.sinks: set[Any] = set()

    def uses_of(self, node: Any) -> int:
        """How many edges lead to a node; 0 for one that is not in the graph."""
        number = self.numbers.get(node)
        return 0 if number is None else self.uses[number]

    def leaves_from(self, node: Any) -> frozenset[int]:
        """The ids of the leaves that a node leads to."""
        start = self.numbers.get(node)
        if start is None:
            return frozenset()
        seen, stack = {start}, [start]
        while stack:
            for after in self.targets[stack.pop()]:
                if after not in seen:
                    seen.add(after)
                    stack.append(after)
        return frozenset(key for key, number in self.at.items() if number in seen)


def walk(
    losses: Sequence[Tensor],
    names: Sequence[str],
    cuts: Mapping[Output, int] | None = None,
    places: Mapping[int, Sequence[Output]] | None = None,
) -> Graph:
    """Visit each node of the losses' graph once, without going on beyond `cuts`.

    Args:
        losses: what to start from; the i-th has bit i.
        names: their names, in whose order leaves are found: reordered losses find them alike.
        cuts: output -> position.
        places: the outputs to start from in place of a loss, by the loss's position.

    Raises:
        InputError: when reentrant checkpointing hides a part of the graph.
    """
    graph = _walked(losses, names, cuts or {}, places, set())
    if sinks := graph.sinks:
        graph = _walked(losses, names, cuts or {}, places, sinks)
        graph.sinks = sinks
    return graph


def _walked(
    losses: Sequence[Tensor],
    names: Sequence[str],
    cuts: Mapping[Output, int],
    places: Mapping[int, Sequence[Output]] | None,
    sinks: set[Any],
) -> Graph:
    """As `walk`; from an output of a node in `sinks` straight on to the input that it is."""
    graph = Graph()
    bits: dict[int, int] = {}
    for i in sorted(range(len(losses)), key=names.__getitem__):
        loss, bit = losses[i], 1 << i
        node = loss.grad_fn
        if node is None:
            number = graph.at.get(id(loss), len(graph.uses))
            if number == len(graph.uses):
                graph.leaves[id(loss)], graph.at[id(loss)] = loss, number
                graph.uses.append(0)
                graph.targets.append([])
            bits[number] = bits.get(number, 0) | bit
            continue
        starts: Sequence[Output] = ((node, loss.output_nr),)
        if places and i in places:
            starts = places[i]
        elif loss.ndim == 0 and type(node).__name__ in PICKS:
            starts = _starts(loss)
        for start in starts:
            start = _beyond(start, sinks)
            known = graph.cuts.get(cuts[start]) if start in cuts else graph.numbers.get(start[0])
            if known is not None:
                number = known
            elif start in cuts:
                number = graph.cuts[cuts[start]] = len(graph.uses)
                graph.uses.append(0)
                graph.targets.append([])
            else:
                number = _explore(start[0], graph, cuts, sinks)
            bits[number] = bits.get(number, 0) | bit
    _spread(bits, graph)
    return graph


def _explore(start: Any, graph: Graph, cuts: Mapping[Output, int], sinks: set[Any]) -> int:
    """Number everything that a node leads to, and count the edges."""
    numbers, uses, targets, leaves = graph.numbers, graph.uses, graph.targets, graph.leaves
    first = numbers[start] = len(uses)
    uses.append(0)
    targets.append([])
    stack = [start]
    while stack:
        node = stack.pop()
        kind = type(node)
        number = numbers[node]
        if kind is ACCUMULATE:
            leaf: Tensor = node.variable
            key = id(leaf)
            if key in leaves:  # it is a loss itself
                targets[number].append(graph.at[key])
                uses[graph.at[key]] += 1
            elif leaf.requires_grad:  # it may have been frozen since the forward pass
                leaves[key], graph.at[key] = leaf, number
            continue
        if kind not in ORDINARY:
            _inspect(node, number, graph)
        row = targets[number]
        edges: Sequence[Output] = node.next_functions
        if sinks:
            edges = [_beyond(edge, sinks) for edge in edges]
        for edge in edges:
            after = edge[0]
            if after is None:
                continue
            if cuts and edge in cuts:
                number = graph.cuts.setdefault(cuts[edge], len(uses))
            else:
                number = numbers.get(after, -1)
                if number < 0:
                    number = numbers[after] = len(uses)
                    stack.append(after)
            if number == len(uses):
                uses.append(0)
                targets.append([])
            uses[number] += 1
            row.append(number)
    return first


def _inspect(node: Any, number: int, graph: Graph) -> None:
    """What is special about a kind of node; nothing about most, which is remembered."""
    kind = type(node)
    if isinstance(node, WRITTEN_IN_PYTHON):
        _inspect_python(node, number, graph)
    elif kind in JOINS:
        graph.joins.append(node)
    elif kind.__name__ == WITHOUT_CLASS:
        if SCRIPTED in node.name():
            graph.regions.add(number)
    else:
        ORDINARY.add(kind)


def _inspect_python(node: Any, number: int, graph: Graph) -> None:
    kind = type(node).__name__
    if kind == COMPILED:
        graph.regions.add(number)
        graph.single_pass = graph.single_pass or allows_one_pass(node)
    elif kind == SINK:
        graph.sinks.add(node)
    elif kind == "RegisterPostBackwardFunctionBackward":
        graph.sharded = True
        if len(node.next_functions) > 1:  # one node of all inputs of a module, as in a region
            graph.regions.add(number)
    elif kind == "CheckpointFunctionBackward":
        raise InputError(
            "a loss goes through torch.utils.checkpoint with use_reentrant=True, which hides the "
            "parameters inside from per-loss gradients: use checkpoint(..., use_reentrant=False)."
        )
    elif not type(node).__module__.startswith("torch.distributed."):
        graph.written.append(node)


def _beyond(output: Output, sinks: set[Any]) -> Output:
    """An output, or of one of a sink the input that it is."""
    while output[0] in sinks:
        sink, place = output
        given = sink.needs_input_grad[1:]  # the first input is no tensor, others need not be
        ways = [edge for edge in sink.next_functions if edge[0] is not None]
        output = ways[sum(given[:place])] if given[place] else (None, 0)
    return output


def _spread(bits: Mapping[int, int], graph: Graph) -> None:
    """Pass the losses' bits on along the edges, from a node once all that lead to it are done."""
    targets, regions = graph.targets, graph.regions
    waiting = graph.uses.copy()
    graph.possible = possible = [0] * len(waiting)
    graph.certain = certain = [0] * len(waiting) if regions else possible
    for number, own in bits.items():
        possible[number] = certain[number] = own
    ready = [number for number in bits if not waiting[number]]
    while ready:
        number = ready.pop()
        losses = possible[number]
        surely = losses if not regions else 0 if number in regions else certain[number]
        for after in targets[number]:
            possible[after] |= losses
            if regions:
                certain[after] |= surely
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)


def _starts(loss: Tensor) -> tuple[Output, ...]:
    """Where a loss starts that was picked out of several: that loss, of `torch.stack(losses)`.

    Nothing for a constant; else the loss's own node.
    """
    node: Any = loss.grad_fn
    before: Any = node.next_functions[0][0]
    if type(before).__name__ != STACK:
        return ((node, loss.output_nr),)
    count = len(before.next_functions)
    index = loss.output_nr if type(node).__name__ == PICKS[0] else node._saved_index
    index -= 1 << 64 if index >= 1 << 63 else 0  # torch shows negative ones without sign
    start: Output = before.next_functions[index % count]
    return (start,) if start[0] is not None else ()

"""The losses' graph, walked once: which losses reach each leaf, and how often each node is used."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.compiled import COMPILED, allows_one_pass
from gradsurgery.engine.nodes import joins
from gradsurgery.errors import InputError

ACCUMULATE = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]  # the stubs lack it
WRITTEN_IN_PYTHON = torch._C._FunctionBase
JOINS = frozenset(joins())
WITHOUT_CLASS = "CppFunction"  # nodes that C++ code has added, without a class for each kind
SCRIPTED = "DifferentiableGraph"  # a region that TorchScript made; it gives zeros, too, to what a loss does not reach
ORDINARY: set[type] = (
    set()
)  # torch's own kinds of nodes, as they are met: nothing is special about them
Output = tuple[Any, int]  # a node and which of its outputs
PICKS, STACK = ("UnbindBackward0", "SelectBackward0"), "StackBackward0"


class Visit:
    """A node, or what else the losses reach.

    Attributes:
        losses: the losses that reach it, one bit each.
        surely: those that reach it outside of compiled regions. A region that torch.compile made is one node, which gives zeros to what a
            loss does not reach: behind it a loss may reach something or not.
        uses: how many edges lead to it.
        passed: how many of them were followed so far.
        edges: where it leads to.
        region: whether it is such a region.
        leaf: the leaf tensor that it stands for.
    """

    __slots__ = ("edges", "leaf", "losses", "passed", "region", "surely", "uses")

    def __init__(self, uses: int = 0) -> None:
        self.losses = self.surely = self.passed = 0
        self.region = False
        self.uses = uses
        self.edges: tuple[Output, ...] = ()
        self.leaf: Tensor | None = None

    def reached(self, losses: int, surely: int) -> None:
        self.losses |= losses
        self.surely |= surely


class Graph:
    """What a walk met.

    Attributes:
        nodes: each node with what is known of it.
        leaves: leaf tensors by id, as far as any loss reaches them.
        cuts: the outputs where the walk ended, by position.
        once: whether a compiled region was met that allows one backward pass only.
        written: the nodes of functions that are written in Python, but for those that torch makes.
        sharded: whether FSDP2 gathers parameters and scatters their gradients within the graph.
        joins: the nodes where tensors were put together.
    """

    def __init__(self) -> None:
        self.nodes: dict[Any, Visit] = {}
        self.leaves: dict[int, Visit] = {}
        self.cuts: dict[int, Visit] = {}
        self.once = False
        self.sharded = False
        self.written: list[Any] = []
        self.joins: list[Any] = []

    def tensor(self, key: int) -> Tensor:
        leaf = self.leaves[key].leaf
        assert leaf is not None
        return leaf


def walk(
    losses: Sequence[Tensor],
    names: Sequence[str],
    cuts: Mapping[Output, int] | None = None,
    places: Mapping[int, Sequence[Output]] | None = None,
) -> Graph:
    """Visit each node of the losses' graph once, without going on beyond `cuts`.

    Args:
        losses: what to start from; the i-th has bit i.
        names: their names, in the order of which leaves are met, so that reordered losses meet them alike.
        cuts: output -> position.
        places: the outputs to start from in place of a loss, by the loss's position.

    Raises:
        InputError: when reentrant checkpointing hides a part of the graph.
    """
    graph, cuts = Graph(), cuts or {}
    starts: list[Visit] = []
    for i in sorted(range(len(losses)), key=names.__getitem__):
        loss, bit = losses[i], 1 << i
        if loss.grad_fn is None:
            visit = graph.leaves.setdefault(id(loss), Visit())
            visit.leaf = loss
            visit.reached(bit, bit)
        else:
            for start in _of_stacked(loss) if not places or i not in places else places[i]:
                if start in cuts:
                    visit = graph.cuts.setdefault(cuts[start], Visit())
                else:
                    if start[0] not in graph.nodes:
                        _explore(start[0], graph, cuts)
                    visit = graph.nodes[start[0]]
                    starts.append(visit)
                visit.reached(bit, bit)
    _spread(dict.fromkeys(starts), graph, cuts)
    return graph


def _explore(start: Any, graph: Graph, cuts: Mapping[Output, int]) -> None:
    """Meet everything behind a node, and count the edges."""
    nodes = graph.nodes
    nodes[start] = Visit()
    stack = [start]
    while stack:
        node = stack.pop()
        visit = nodes[node]
        kind = type(node)
        if kind is ACCUMULATE:
            leaf: Tensor = node.variable
            if leaf.requires_grad:  # it may have been frozen since the forward pass
                if id(leaf) in graph.leaves:  # it is a loss itself
                    graph.leaves[id(leaf)].uses += visit.uses
                    nodes[node] = visit = graph.leaves[id(leaf)]
                visit.leaf = leaf
                graph.leaves[id(leaf)] = visit
            continue
        if kind not in ORDINARY:
            if isinstance(node, WRITTEN_IN_PYTHON):
                _look_inside(node, visit, graph)
            elif kind in JOINS:
                graph.joins.append(node)
            elif kind.__name__ == WITHOUT_CLASS:
                visit.region = SCRIPTED in node.name()
            else:
                ORDINARY.add(kind)
        visit.edges = edges = node.next_functions
        for edge in edges:
            after = edge[0]
            if after is None or (cuts and edge in cuts):
                continue
            if after in nodes:
                nodes[after].uses += 1
            else:
                nodes[after] = Visit(1)
                stack.append(after)


def _look_inside(node: Any, visit: Visit, graph: Graph) -> None:
    kind = type(node).__name__
    if kind == COMPILED:
        visit.region = True
        graph.once = graph.once or allows_one_pass(node)
    elif kind == "RegisterPostBackwardFunctionBackward":
        graph.sharded = True
    elif kind == "CheckpointFunctionBackward":
        raise InputError(
            "a loss goes through torch.utils.checkpoint with use_reentrant=True, which hides the parameters inside from "
            "per-loss gradients: use checkpoint(..., use_reentrant=False)."
        )
    else:
        graph.written.append(node)


def _spread(starts: Iterable[Visit], graph: Graph, cuts: Mapping[Output, int]) -> None:
    """Pass the losses' bits on along the edges, from each node once all that lead to it are through."""
    nodes = graph.nodes
    ready = [visit for visit in starts if visit.uses == 0]
    while ready:
        visit = ready.pop()
        losses, surely = visit.losses, 0 if visit.region else visit.surely
        for edge in visit.edges:
            after = edge[0]
            if after is None:
                continue
            if cuts and edge in cuts:
                graph.cuts.setdefault(cuts[edge], Visit()).reached(losses, surely)
                continue
            known = nodes[after]
            known.losses |= losses
            known.surely |= surely
            known.passed += 1
            if known.passed == known.uses:
                ready.append(known)


def _of_stacked(loss: Tensor) -> tuple[Output, ...]:
    """Where a loss starts from: for an element of `torch.stack(losses)` the loss itself; nothing for a constant."""
    node: Any = loss.grad_fn
    kind = type(node).__name__
    if loss.ndim == 0 and kind in ("UnbindBackward0", "SelectBackward0"):
        before: Any = node.next_functions[0][0]
        if type(before).__name__ == "StackBackward0":
            count = len(before.next_functions)
            index = loss.output_nr if kind == "UnbindBackward0" else node._saved_index
            index -= 1 << 64 if index >= 1 << 63 else 0  # torch shows negative ones without sign
            start: Output = before.next_functions[index % count]
            return (start,) if start[0] is not None else ()
    return ((node, loss.output_nr),)

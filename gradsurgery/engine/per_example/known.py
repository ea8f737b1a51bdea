"""The plans of the graphs seen lately, each known again by its nodes, edges and parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradsurgery.engine.graph import Graph
from gradsurgery.engine.parameters import is_parameter
from gradsurgery.engine.per_example.orders import signed
from gradsurgery.engine.per_example.plan import Plan

# what tells nodes of one kind apart that mix examples or do not
DIMS = {
    **{
        f"{kind}Backward{k}": ("_saved_dim",)
        for k, kinds in enumerate(
            (
                ("Var", "Std", "Softmax", "LogSoftmax", "Logsumexp", "Cumsum", "Amax", "Amin")
                + ("LinalgVectorNorm", "Unbind"),
                ("Mean", "Sum"),
            )
        )
        for kind in kinds
    },
    "TransposeBackward0": ("_saved_dim0", "_saved_dim1"),
    "PermuteBackward0": ("_saved_dims",),
    "FlipBackward0": ("_saved_dims",),
    "RollBackward0": ("_saved_shifts", "_saved_dims"),
    "StackBackward0": ("_saved_dim",),
    "CatBackward0": ("_saved_dim",),
    "DiagonalBackward0": ("_saved_offset", "_saved_dim1", "_saved_dim2"),
}
# what takes parts of a tensor -> the names of what it saved of them, other than the dimension
PARTS = {
    "SliceBackward0": ("_saved_start", "_saved_end"),
    "SplitBackward0": ("_saved_split_size",),
    "UnsafeSplitBackward0": ("_saved_split_size",),
    "SplitWithSizesBackward0": ("_saved_split_sizes",),
    "UnsafeSplitWithSizesBackward0": ("_saved_split_sizes",),
}
SELECT, SLICE = "SelectBackward0", "SliceBackward0"
SEVERAL = {"UnbindBackward0", *PARTS} - {SLICE}  # whose outputs are parts of one kind
TABLE = "EmbeddingBackward0"
KEPT = 8  # plans, the one used last first


@dataclass
class Plans:
    """Plans by what their graphs were like. Parameters in a key are held, so that ids stay."""

    found: list[tuple[Any, Any, Plan]] = field(default_factory=list)

    def get(self, graph: Graph, tensors: Mapping[str, Tensor], examples: int) -> Plan | None:
        """The plan of a graph, under the names that its leaves have now."""
        key, names = _key(graph, tensors, examples), list(tensors)
        for i, (known, held, plan) in enumerate(self.found):
            if known == key:
                self.found.insert(0, self.found.pop(i))
                before = held[0]
                if before != names:  # inputs that require grad have a name per step
                    plan.rename(dict(zip(before, names, strict=True)))
                    self.found[0] = known, (names, held[1]), plan
                return plan
        return None

    def put(self, graph: Graph, tensors: Mapping[str, Tensor], plan: Plan, examples: int) -> None:
        """Know a plan from now on."""
        if any(plan is known for _, _, known in self.found):
            return
        held = [t for t in tensors.values() if is_parameter(t)]
        self.found.insert(0, (_key(graph, tensors, examples), (list(tensors), held), plan))
        del self.found[KEPT:]


def _key(graph: Graph, tensors: Mapping[str, Tensor], examples: int) -> Any:
    ids = [id(t) if is_parameter(t) else None for t in tensors.values()]
    kinds = list(map(type, graph.numbers))
    dims = [
        [getattr(node, name, None) for name in DIMS[kind.__name__]]
        for node, kind in zip(graph.numbers, kinds, strict=True)
        if kind.__name__ in DIMS
    ]
    tables = [_leading(node) for node in graph.numbers if type(node).__name__ == TABLE]
    return kinds, graph.targets, ids, dims, tables, _orders(graph, kinds, examples)


def _orders(graph: Graph, kinds: list[type], examples: int) -> list[Any]:
    """Which parts are taken over examples, and where outputs of a node that gives several go.

    Only of the first dimension, or of one of B entries: the time's parts change with its length.
    """
    found: list[Any] = []
    several = set[int]()
    for node, kind in zip(graph.numbers, kinds, strict=True):
        name = kind.__name__
        if name in SEVERAL:
            several.add(graph.numbers[node])
        if name == SELECT or name in PARTS:
            sizes = node._saved_self_sym_sizes
            dim = signed(node._saved_dim) % len(sizes)
            if not dim or sizes[dim] == examples:
                found.append((dim, _part(node, name, sizes[dim])))
    if several:
        for node, number in graph.numbers.items():
            if not several.isdisjoint(graph.targets[number]):
                found.append((number, [output for _, output in node.next_functions]))
    return found


def _part(node: Any, kind: str, size: int) -> Any:
    """Relative to the size where batches of other sizes are the same graph."""
    if kind == SELECT:
        return signed(node._saved_index)
    values: list[Any] = [getattr(node, name) for name in PARTS[kind]]
    if kind == SLICE:
        ends = [signed(value) for value in values]
        values = [min(v + size if v < 0 else v, size) for v in ends] + [size * node._saved_step]
    elif not isinstance(values[0], int):
        values = list(values[0])
    return [value / size if size else value for value in values]


def _leading(node: Any) -> tuple[int, bool]:
    """Whether entries were taken by example, or once for all as positions are."""
    shape = node._input_metadata[0].shape
    return len(shape), shape[0] == 1

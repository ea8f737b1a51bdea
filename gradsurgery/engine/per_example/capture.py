"""One backward pass that brings the gradients at the outputs of the nodes that use parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.engine.passes import grad

Deltas = dict[int | str, list[Tensor | None]]  # node, or feature -> the gradient at each output


def capture(
    losses: Tensor,
    root: Tensor,
    nodes: Mapping[int, Any],
    beside: Sequence[Tensor] = (),
    retain_graph: bool = True,
) -> tuple[Deltas, list[Tensor | None]]:
    """The gradients at the outputs of some nodes, and of tensors beside them, in one pass.

    Args:
        losses: ℓ.
        root: the gradient that the pass starts with.
        nodes: number -> node.
        beside: what gets its own gradient too.
        retain_graph: whether the graph is needed afterwards.
    """
    found: Deltas = {}
    handles = []
    edges, places = [], []

    def listen(number: int) -> Any:
        def hook(gradients: Sequence[Tensor | None]) -> None:
            found[number] = [None if g is None else g.detach() for g in gradients]

        return hook

    for number, node in nodes.items():
        handles.append(node.register_prehook(listen(number)))
        for k in range(outputs_of(node)):
            edges.append(GradientEdge(node, k))
            places.append((number, k))
    if not edges and not beside:
        return {}, []
    try:
        given = grad([losses], [*edges, *beside], [root], retain_graph)
    finally:
        for handle in handles:
            handle.remove()
    # A node behind which nothing was asked for is not run: what is asked for at it is what it got.
    for (number, k), g in zip(places, given, strict=False):
        if number not in found or (k < len(found[number]) and found[number][k] is None):
            own = found.setdefault(number, [])
            own += [None] * (k + 1 - len(own))
            own[k] = None if g is None else g.detach()
    return found, list(given[len(edges) :])


def outputs_of(node: Any) -> int:
    """How many outputs a node has, as far as it says."""
    return len(getattr(node, "_input_metadata", None) or (0,))

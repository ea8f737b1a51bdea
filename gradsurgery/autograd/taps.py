"""Linear layers whose weight gradients are not formed: the gradients at their outputs say the Gram matrix, and one product the result."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.autograd.graph import Graph, Visit
from gradsurgery.autograd.losses import Losses
from gradsurgery.autograd.scene import Scene

SMALL = 1 << 14  # weights with fewer entries are not worth looking for
READS = 4  # what it costs to read one entry of a gradient, in multiplications


@dataclass(frozen=True)
class Tap:
    """A layer y = xWᵀ + b at its node of the graph, which is given dL/dy [rows, out] in a backward pass, and x [rows, in].

    `through` is where a gradient has to be asked for so that the node is visited at all; None where that of b is asked for anyway. A gradient
    asked for at the node itself would lack what hooks on y do to it. `bias` is b where it has to be asked for.
    """

    node: Any
    inputs: Tensor
    through: GradientEdge | None
    bias: Tensor | None = None


@contextlib.contextmanager
def listening(taps: Mapping[str, Tap]) -> Iterator[dict[str, Tensor]]:
    """The gradients at the outputs of tapped layers, by the weights' names, as a backward pass within comes by."""
    heard: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[Any], None]:
        def hook(gradients: Any) -> None:
            if gradients[0] is not None:
                heard[name] = gradients[0].detach()

        return hook

    with contextlib.ExitStack() as stack:
        for name, tap in taps.items():
            stack.callback(tap.node.register_prehook(listen(name)).remove)
        yield heard


def find_taps(graph: Graph, losses: Losses, scene: Scene, method: str, lean: bool = False) -> dict[str, Tap]:
    """The weights, by name, whose gradients need not be formed.

    A weight counts when its only use in the graphs of all losses is one product with an input, so that its gradient is Δᵀx; a weight
    that is tied, used twice, penalised, or has a hook is not found.

    Args:
        graph: that of the losses.
        losses: the losses of one batch.
        scene: what they reach.
        method: "auto" takes layers where counting operations says that it pays, "taps" all that are found, the others none.
        lean: with "auto" take layers too where it saves memory.
    """
    names = {id(t): name for name, t in scene.trained.items() if t.ndim == 2 and (method == "taps" or t.numel() >= SMALL)}
    names = {key: name for key, name in names.items() if not scene.trained[name].is_complex()}
    if method in ("gradients", "batched") or losses.batches > 1 or not names:
        return {}
    found: dict[str, Tap] = {}
    for node in graph.nodes:
        if type(node).__name__ not in ("AddmmBackward0", "MmBackward0"):
            continue
        entry = _weight_and_inputs(node, graph.nodes)
        if entry is None or id(entry[0]) not in names:
            continue
        weight, inputs = entry
        through, bias = _way_to(node, scene)
        if through is None and bias is None:
            continue
        name = names[id(weight)]
        n = scene.met[name].bit_count()
        if n > 1 and name not in scene.unsure and (method == "taps" or (lean and 2 * len(inputs) <= len(weight.T)) or _pays(n, len(inputs), *weight.shape)):
            found[name] = Tap(node, inputs, through, bias)
    return found


def _weight_and_inputs(node: Any, nodes: Mapping[Any, Visit]) -> tuple[Tensor, Tensor] | None:
    """W and x of a node that is xWᵀ (+ b), when W is used nowhere else."""
    addmm = type(node).__name__ == "AddmmBackward0"
    transposed = node.next_functions[2 if addmm else 1][0]
    if transposed is None or type(transposed).__name__ != "TBackward0" or transposed not in nodes or nodes[transposed].uses != 1:
        return None
    leaf = transposed.next_functions[0][0]
    if leaf is None or type(leaf).__name__ != "AccumulateGrad" or leaf not in nodes or nodes[leaf].uses != 1:
        return None
    weight: Tensor = leaf.variable
    if weight._backward_hooks or (addmm and (node._saved_alpha != 1 or node._saved_beta != 1)):
        return None
    try:
        inputs: Tensor | None = node._saved_mat1 if addmm else node._saved_self
    except RuntimeError:  # freed, or changed in place since: the backward pass says so
        return None
    if inputs is None or inputs.ndim != 2 or inputs.dtype != weight.dtype or inputs.layout != torch.strided:
        return None
    return weight, inputs.detach()


def _way_to(node: Any, scene: Scene) -> tuple[GradientEdge | None, Tensor | None]:
    """What has to be asked for so that a pass visits the node without forming the weight's gradient: an edge before it, or the bias; None if nothing is."""
    addmm = type(node).__name__ == "AddmmBackward0"
    bias = getattr(node.next_functions[0][0], "variable", None) if addmm else None
    if bias is not None and any(bias is t for t in (*scene.trained.values(), *scene.others.values())):
        return None, bias
    before, output = node.next_functions[1 if addmm else 0]
    return None if before is None else GradientEdge(before, output), None


def _pays(n: int, rows: int, out: int, inside: int) -> bool:
    """Multiplications of both ways: n gradients, their Gram and their sum, against x xᵀ, its product with each Δ, and one gradient."""
    entries = out * inside
    gradients = n * rows * entries + READS * n * (n + 1) // 2 * entries
    taps = rows * rows * (inside + n * out) + n * n * rows * out + rows * entries
    return taps < gradients


def inputs_of(names: Sequence[str], taps: Mapping[str, Tap]) -> dict[int, Tensor]:
    """Position -> x, for those of some parameters that are tapped."""
    return {t: taps[name].inputs for t, name in enumerate(names) if name in taps}

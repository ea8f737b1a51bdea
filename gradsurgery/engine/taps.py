"""Linear layers whose weight gradients are not formed: the gradients at their outputs say the Gram matrix, and one product the result.

What acts on the weight's gradient between the layer's output and the weight keeps a layer from being
tapped. Hooks that Python registered on nodes are listed at every step. What no list shows, `proof`
finds when the leaves are new, or the losses that reach them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.config import Config
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.trace import Trace

SMALL = 1 << 14  # weights with fewer entries are not worth looking for
READS = 4  # what it costs to read one entry of a gradient, in multiplications


@dataclass(frozen=True)
class Tap:
    """A layer y = xWᵀ + b at its node of the graph, which is given dL/dy [rows, out] in a backward pass, and x [rows, in].

    `through` is where a gradient has to be asked for so that the node is visited at all; None where that of b is asked for anyway. A gradient
    asked for at the node itself would lack what hooks on y do to it. `bias` is b where it has to be asked for.
    With `compare` Δᵀx is compared with autograd's own gradient, unless `proved` has the weight: by name,
    whether both agreed.
    """

    node: Any
    inputs: Tensor
    through: GradientEdge | None
    bias: Tensor | None = None
    proved: dict[str, bool] = field(default_factory=dict)
    compare: bool = True


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


def find_taps(
    graph: Graph, losses: Losses, trace: Trace, config: Config, cache: TraceCache
) -> dict[str, Tap]:
    """The weights, by name, whose gradients need not be formed.

    A weight counts when its only use in the graphs of all losses is one product with an input, so that its gradient is Δᵀx; a weight
    that is tied, used twice, penalised, or has a hook is not found. Where saved tensors come back through
    hooks they are not read, unless "taps" is asked for: that would recompute a checkpointed region, or copy
    what was offloaded.

    Args:
        graph: that of the losses.
        losses: the losses of one batch.
        trace: what they reach.
        config: `method` "auto" takes layers where counting operations says that it pays, or, with
            `low_memory`, where it saves memory; "taps" takes all that are found, the others none.
            With `once` comparing would cost what taps save: it is then done only where hooks
            cannot all be listed.
        cache: what was compared so far.
    """
    method, low, once = config.method, config.low_memory, config.once
    if method in ("gradients", "batched") or losses.batches > 1:
        return {}
    names = {
        id(t): name
        for name, t in trace.trained.items()
        if t.ndim == 2 and (method == "taps" or t.numel() >= SMALL)
    }
    names = {key: name for key, name in names.items() if not trace.trained[name].is_complex()}
    if not names:
        return {}
    found: dict[str, Tap] = {}
    uncertain = trace.reach.uncertain
    for node in graph.numbers:
        if type(node).__name__ not in ("AddmmBackward0", "MmBackward0"):
            continue
        weight = _weight(node, graph)
        if (
            weight is None
            or id(weight) not in names
            or cache.verified.get(names[id(weight)]) is False
        ):
            continue
        name, rows = names[id(weight)], _rows(node)
        n = trace.reach.count(name)
        if (
            n < 2
            or name in uncertain
            or not (
                method == "taps"
                or (low and 2 * rows <= len(weight.T))
                or _pays(n, rows, *weight.shape)
            )
        ):
            continue
        through, bias = _way_to(node, trace)
        hooked = _is_hooked(node, method)
        if (through is None and bias is None) or hooked:
            continue
        inputs = _inputs(node, weight, method)
        if inputs is not None:
            found[name] = Tap(
                node, inputs, through, bias, cache.verified, hooked is None or not once
            )
    return found


def _is_addmm(node: Any) -> bool:
    return type(node).__name__ == "AddmmBackward0"


def _transposed(node: Any) -> Any:
    """The node of Wᵀ, if it is one."""
    found = node.next_functions[2 if _is_addmm(node) else 1][0]
    return found if type(found).__name__ == "TBackward0" else None


def _weight(node: Any, graph: Graph) -> Tensor | None:
    """W of a node that is xWᵀ (+ b), when W is used nowhere else."""
    transposed = _transposed(node)
    if transposed is None or graph.uses_of(transposed) != 1:
        return None
    leaf = transposed.next_functions[0][0]
    if leaf is None or type(leaf).__name__ != "AccumulateGrad" or graph.uses_of(leaf) != 1:
        return None
    weight: Tensor = leaf.variable
    if (
        type(weight).__torch_dispatch__ is not Tensor.__torch_dispatch__
    ):  # a kind of tensor with products of its own
        return None
    if weight._backward_hooks or (
        _is_addmm(node) and (node._saved_alpha != 1 or node._saved_beta != 1)
    ):
        return None
    return weight


def _rows(node: Any) -> int:
    """The rows of x, which are known without x."""
    return int((node._saved_mat1_sym_sizes if _is_addmm(node) else node._saved_self_sym_sizes)[0])


def _inputs(node: Any, weight: Tensor, method: str) -> Tensor | None:
    """x, when it can be had as it is."""
    found = _saved(node, "mat1" if _is_addmm(node) else "self", method)
    if (
        found is None
        or found.ndim != 2
        or found.dtype != weight.dtype
        or found.layout != torch.strided
    ):
        return None
    return found.detach()


def _saved(node: Any, name: str, method: str) -> Tensor | None:
    """What a node has saved; None where it was freed or changed in place, as the pass will say."""
    raw = getattr(node, f"_raw_saved_{name}")
    if (
        method != "taps" and getattr(raw, "unpack_hook", None) is not None
    ):  # torch < 2.7 does not tell
        return None
    try:
        saved: Tensor | None = getattr(node, f"_saved_{name}")
    except (RuntimeError, AttributeError):
        return None
    return saved


def _is_hooked(node: Any, method: str) -> bool | None:
    """Whether a hook acts on the weight's gradient after the layer's output; None where not all can be known.

    What `Module.register_backward_hook` registers is on the layer's node. Hooks on Wᵀ as a tensor are
    known where the node keeps it, which it does for x with a graph.
    """
    transposed = _transposed(node)
    if any(
        _has_hooks(register)
        for register in (node.register_hook, transposed.register_hook, transposed.register_prehook)
    ):
        return True
    kept = _saved(node, "mat2", method)
    return None if kept is None else bool(kept._backward_hooks)


def _has_hooks(register: Callable[[Callable[..., None]], Any]) -> bool:
    """Whether a node has hooks of this kind: the list is had by adding one, and taking it out again."""
    handle = register(_nothing)
    hooks = handle.hooks_dict_ref()
    handle.remove()
    return hooks is None or len(hooks) > 0


def _nothing(*_: Any) -> None:
    return None


def _way_to(node: Any, trace: Trace) -> tuple[GradientEdge | None, Tensor | None]:
    """What has to be asked for so that a pass visits the node without forming the weight's gradient: an edge before it, or the bias; None if nothing is."""
    addmm = _is_addmm(node)
    bias = getattr(node.next_functions[0][0], "variable", None) if addmm else None
    if bias is not None and any(
        bias is t for t in (*trace.trained.values(), *trace.others.values())
    ):
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

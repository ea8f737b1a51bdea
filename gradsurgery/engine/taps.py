"""Tapped layers: a backward pass brings the gradients at their outputs, and forms none of a weight.

What acts on the weight's gradient between the layer's output and the weight keeps a layer from
being tapped. Hooks that Python registered on nodes are listed at every step. What no list shows,
`agreement` finds when the leaves are new, or the losses that reach them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.config import Config
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.trace import SMALL, Trace
from gradsurgery.gradients.factored import RULES, Layer, Rule, Tap, find, pays


@contextlib.contextmanager
def listening(taps: Mapping[str, Tap]) -> Iterator[dict[str, Tensor]]:
    """The gradients at the outputs of tapped layers, by the weights' names, as a pass goes by."""
    found: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[Any], None]:
        def hook(gradients: Any) -> None:
            if gradients[0] is not None:
                found[name] = gradients[0].detach()

        return hook

    with contextlib.ExitStack() as stack:
        for name, tap in taps.items():
            stack.callback(tap.node.register_prehook(listen(name)).remove)
        yield found


def may_tap(config: Config, trace: Trace | None = None) -> bool:
    """Whether the settings let a step tap layers, and the trace has some that are worth it."""
    strategy, method = config.strategy, config.method
    if strategy is not None and "rows" in strategy.inputs:
        return False
    return method == "taps" or (method == "auto" and (trace is None or trace.large))


def over_processes(config: Config, features: Mapping[str, Tensor] | None) -> bool:
    """Whether processes may exchange the factors of layers in place of gradients in a step."""
    strategy = config.strategy
    asked = strategy is None or strategy.needs_gradients
    return asked and may_tap(config) and not (features or config.low_memory)


def candidates(trace: Trace, every: bool) -> dict[str, Tensor]:
    """The tensors that may be weights of tapped layers, by name; only large ones unless `every`."""
    return {n: t for n, t in trace.matrices.items() if every or t.numel() >= SMALL}


def find_taps(
    graph: Graph,
    losses: Losses,
    trace: Trace,
    config: Config,
    cache: TraceCache,
    only: Rule | None = None,
) -> dict[str, Tap]:
    """The weights, by name, whose gradients need not be formed.

    A weight counts when its only use in the graphs of all losses is in a layer that a rule knows;
    one that is tied, used twice, penalised, or has a hook is not found. Where saved tensors come
    back through hooks they are not read, unless "taps" is asked for: that would recompute a
    checkpointed region, or copy what was offloaded.

    Args:
        graph: that of the losses.
        losses: the losses of one batch.
        trace: what they reach.
        config: `method` "auto" takes layers where counting operations says that it pays, or, with
            `low_memory`, where it saves memory; "taps" takes all that are found, but those whose
            rule counts always; the others take none. With `once` comparing would cost what taps
            save: it is then done only where hooks cannot all be listed.
        cache: what was compared so far.
        only: take all layers that this rule matches, also of a single loss, and no others.
    """
    method, every = config.method, config.method == "taps"
    if method in ("gradients", "batched") or losses.batches > 1:
        return {}
    asked = candidates(trace, every) if only is None else _matrices(trace, every)
    names = {id(t): n for n, t in asked.items()}
    if not names:
        return {}
    found: dict[str, Tap] = {}
    biases = {id(t): name for name, t in trace.tensors.items() if t.ndim == 1}
    for node in graph.numbers:
        if type(node).__name__ not in RULES or (known := find(node, graph.uses_of)) is None:
            continue
        rule, match = known
        name = names.get(id(match.weight))
        if name is None or name in trace.reach.uncertain or cache.verified.get(name) is False:
            continue
        if only is None:
            taken = pays(rule, match, trace.reach.count(name), every, config.low_memory)
        else:
            taken = rule is only
        if not taken:
            continue
        bias, through = biases.get(id(match.bias)), None
        if match.before[0] is not None and (bias is None or not rule.bias_apart):
            through = GradientEdge(*match.before)
        hooked = match.hooked(every)
        if (through is None and bias is None) or hooked:
            continue
        layer = rule.read(match, every)
        if layer is not None:
            compare = hooked is None or not config.once
            found[name] = Tap(node, layer, through, bias, cache.verified, compare)
    return found


def _matrices(trace: Trace, every: bool) -> dict[str, Tensor]:
    return {n: t for n, t in trace.trained.items() if t.ndim == 2 and (every or t.numel() >= SMALL)}


def layers_of(names: Sequence[str], taps: Mapping[str, Tap]) -> dict[int, Layer]:
    """Position -> the layer, for those of some parameters that are tapped."""
    return {t: taps[name].layer for t, name in enumerate(names) if name in taps}

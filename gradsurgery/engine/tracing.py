"""The trace of a step made from the losses' graph, or the one of the step before."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from gradsurgery.engine.boundary import check_separate, features_found
from gradsurgery.engine.cache import TraceCache, key_of
from gradsurgery.engine.compiled import ONE_PASS
from gradsurgery.engine.config import Config
from gradsurgery.engine.graph import Graph, Output, walk
from gradsurgery.engine.grouping import OTHERS
from gradsurgery.engine.history import History
from gradsurgery.engine.joined import may_be_joined, separated
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parallel.dtensor import spread_of
from gradsurgery.engine.parallel.fsdp import Passes, with_shards
from gradsurgery.engine.parameters import is_parameter
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError, warn
from gradsurgery.gradients.coordinates import check_layout


def trace_graph(
    config: Config,
    losses: Losses,
    history: History,
    features: dict[str, Tensor] | None,
    cache: TraceCache,
) -> tuple[Trace, History, Graph]:
    """The trace of a step, the history with new parameters numbered, and the graph.

    Raises:
        InputError: when the losses reach nothing that is trained, or something that cannot be.
    """
    if not losses.names:
        return nothing(config, history), history, Graph()
    cuts = {(z.grad_fn, z.output_nr): i for i, z in enumerate((features or {}).values())}
    graph = walk(losses.tensors, losses.names * losses.batches, cuts)
    if config.parameters.spread and with_shards(graph):
        graph.passes = Passes(graph.leaves.values(), config.memory == "high")
    given = config.parameters.named()
    config.check_processes(graph)
    key = None if features else key_of(given, history.known, losses, graph)
    found = cache.find(key, history.reach)
    if found is not None:
        return found, history, graph
    walked = graph
    if losses.examples is None:
        graph = _separated(losses, cuts, graph, cache)
    trace, history = _trace(config, losses, history, features or {}, graph, given, cache)
    complete = len(graph.leaves) == len(trace.tensors)
    # joined losses are separated every time; and no inputs or features are held on to
    if walked is graph and complete and not features and not trace.unchecked:
        key = key_of(given, history.known, losses, graph)  # new parameters have numbers now
        cache.keep(key, trace, given, history.known)
    else:
        cache.drop()
    return trace, history, graph


def nothing(config: Config, history: History) -> Trace:
    """The trace of no losses, as a process has that got no example."""
    unreached = {name: tensor for name, tensor, _ in config.parameters.named().values()}
    explicit = {name: group for name, _, group in config.parameters.named().values()}
    groups = explicit if config.parameters.explicit else None
    return Trace({}, {}, groups, Reach(), history.reach, unreached=unreached)


def _separated(
    losses: Losses, cuts: Mapping[Output, int], graph: Graph, cache: TraceCache
) -> Graph:
    """The graph from where each loss was before losses were joined; the same where none were."""
    if not may_be_joined(graph, len(losses.tensors)):
        return graph
    key = losses.names, len(graph.joins), [graph.possible[k] for k in graph.at.values()]
    if cache.separate == key:  # as in the last step in which nothing was found
        return graph
    names = losses.names * losses.batches
    starts, warning = separated(losses.tensors, names, graph, cuts)
    if warning and warning not in cache.warned:
        cache.warned.add(warning)
        warn(warning)
    if starts:
        again = walk(losses.tensors, names, cuts, starts)
        # a part that no loss takes gets zeros from torch, not nothing
        if again.leaves.keys() == graph.leaves.keys():
            return again
    cache.separate = key
    return graph


def _trace(
    config: Config,
    losses: Losses,
    history: History,
    features: dict[str, Tensor],
    graph: Graph,
    given: Mapping[int, tuple[str, Tensor, str]],
    cache: TraceCache,
) -> tuple[Trace, History]:
    around = graph.leaves
    inside, inside_once = features_found(features, graph)
    if config.parameters.discover:
        history.check_resumable(losses.names)
        history = _numbered(history, around)
        names = {key: history.known[key][0] for key in around if key in history.known}
        trunk = [leaf for leaf in inside.values() if is_parameter(leaf)]
        if not names and not trunk:
            raise InputError(
                f"the losses reach no nn.Parameter (they reach {len(around)} other leaf tensors): "
                "give the tensors to train as parameters=."
            )
    else:
        names = {key: name for key, (name, _, _) in given.items() if key in around}
        trunk = [leaf for key, leaf in inside.items() if key in given]
        if not names and not trunk:
            raise InputError(
                f"the losses reach none of the {len(given)} trainable parameters given."
            )
    outside: dict[int, str] = {}
    unknown: list[Tensor] = []
    if config.include_others:
        # Leaves of every kind, as in torch: a coefficient need not be an nn.Parameter.
        new = [key for key in around if key not in names and _is_taken(around[key], cache)]
        outside = {key: f"{OTHERS}#{key:x}" for key in new}
        trained = set(map(id, trunk))
        unknown = [t for key, t in inside.items() if key not in trained and _is_taken(t, cache)]
    both = {**names, **outside}
    for key, name in both.items():
        check_layout(name, around[key])
    for leaf in (*trunk, *unknown):
        check_layout(given[id(leaf)][0] if id(leaf) in given else "#", leaf)
    if inside_once and trunk and unknown:
        raise InputError(ONE_PASS)
    if features:
        check_separate({**around, **inside}, {id(t) for t in (*trunk, *unknown)} & set(both))
    numbers = {name: graph.cuts[i] for i, name in enumerate(features)}
    numbers.update({name: graph.at[key] for key, name in both.items()})
    reach = Reach(
        losses.names,
        {name: graph.possible[k] for name, k in numbers.items()},
        {name: graph.certain[k] for name, k in numbers.items()} if graph.regions else None,
        losses.batches,
    )
    explicit = {name: group for name, _, group in given.values()}
    trace = Trace(
        {**features, **{name: around[key] for key, name in names.items()}},
        {name: around[key] for key, name in outside.items()},
        explicit if config.parameters.explicit else None,
        reach,
        history.reach,
        features,
        trunk,
        unknown,
        graph.single_pass,
        {n: t for key, (n, t, _) in given.items() if key not in around and key not in inside},
        spread_of({name: around[key] for key, name in both.items()}),
    )
    return trace, history


def _numbered(history: History, leaves: Mapping[int, Tensor]) -> History:
    """The history with a number for each parameter that was not reached before."""
    new = [key for key, t in leaves.items() if key not in history.known and is_parameter(t)]
    if not new:
        return history
    count = len(history.known)
    named = {key: (f"#{count + i}", leaves[key]) for i, key in enumerate(new)}
    counted = history.numbered + 1 if history.known else 1
    return replace(history, known={**history.known, **named}, numbered=counted)


def _is_taken(leaf: Tensor, cache: TraceCache) -> bool:
    """Whether a leaf that was not given takes part.

    An input of another layout does not, which is said once.
    """
    if is_parameter(leaf) or (leaf.layout == torch.strided and not leaf.is_nested):
        return True
    form = "a nested tensor" if leaf.is_nested else str(leaf.layout)
    shape = "?" if leaf.is_nested else list(leaf.shape)
    text = f"a leaf of shape {shape} that requires grad is {form}: it gets no gradient here."
    if text not in cache.warned:
        cache.warned.add(text)
        hint = "Where none is wanted make it without requires_grad, or give others='ignore'."
        warn(f"{text} {hint} Said once.")
    return False

"""The gradients of every loss gathered, and brought into a gradient matrix per group."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.chunks import chunks, form_grams
from gradsurgery.engine.config import Config
from gradsurgery.engine.deciding import left_out
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.per_example.gather import gather as gather_examples
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.taps import find_taps, layers_of, may_tap
from gradsurgery.gradients.coordinates import (
    check_not_sparse,
    entries,
    gradient_dtype,
    in_coordinates,
)
from gradsurgery.gradients.factored import Tap
from gradsurgery.gradients.gram import counted
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.transfer import to_host

Named = dict[str, Tensor]


def gather(config: Config, source: GradientSource, cache: TraceCache) -> None:
    """Fill the source with the gradients of every loss: factored, batched or in chunks as set."""
    trace, graph = source.trace, source.graph
    if config.decide_on is not None:
        source.apart = left_out(config.decide_on, trace, config.min_objectives, cache.warned)
    in_one = trace.spread is None and not trace.reach.uncertain
    if source.losses.examples is not None and graph is not None and in_one:
        gather_examples(source, cache)
        return
    factored: dict[str, Tap] = {}
    if source.communicator.several:
        factored = source.communicator.tapped(trace)
    elif graph is not None and trace.spread is None and may_tap(config, trace):
        factored = find_taps(graph, source.losses, trace, config, cache)
        if source.apart:
            factored = {name: tap for name, tap in factored.items() if name not in source.apart}
    if config.low_memory:
        form_grams(source, chunks(trace, factored))
    source.per_loss(cache, factored, config.method == "batched")


def arrived(source: GradientSource) -> tuple[list[Group], Reach, list[Named], Named]:
    """The groups by what arrived.

    Returns:
        The groups as far as this process holds them, the reach so far with this step's, per loss
        its gradients, and zeros for the parameters that no loss reaches.
    """
    trace = source.trace
    if source.mixed and not trace.reach.uncertain:
        return *trace.grouping, source.rows, {}
    if not (trace.reach.uncertain or source.grams):
        pairs = zip(source.rows, trace.wanted, strict=True)
        apart = source.apart or ()
        if all(row.keys() == wanted.keys() - apart for row, wanted in pairs):  # as the graph
            groups, grown = trace.grouping
            return source.communicator.held(groups), grown, source.rows, {}
    rows, idle = (source.rows, {}) if not trace.reach.uncertain else without_zeros(source)
    reach = trace.reach.arrived(rows, source.apart)
    groups, grown = trace.grouping if reach is trace.reach else trace.grouped(reach)
    if any(name in trace.trained and name not in grown for name in idle):
        unreached = {name: frozenset[str]() for name in idle if name in trace.trained}
        grown = grown.united(Reach.of(unreached))
    return source.communicator.held(groups), grown, rows, idle


def without_zeros(source: GradientSource) -> tuple[list[Named], Named]:
    """The gradients without the zeros of losses that do not reach, and zeros where no loss does.

    Past a compiled region every loss gives every parameter a gradient. There a loss reaches what
    it has ever given more than zeros.
    """
    trace, names = source.trace, source.losses.names * source.losses.batches
    places = [
        (i, name)
        for i, found in enumerate(source.rows)
        for name, g in found.items()
        if trace.reach.only_possibly(name, i) and g.numel() > 0
    ]
    if not places:
        return source.rows, {}
    found = [entries(source.rows[i][name]) for i, name in places]
    sizes = torch._foreach_norm(found, torch.inf)
    largest = iter(to_host((), sizes, total=source.communicator.total))
    kept = [dict(row) for row in source.rows]
    for (i, name), size in zip(places, largest, strict=True):
        if size == 0 and names[i] not in trace.before.get(name, ()):
            del kept[i][name]
    left = {name for row in kept for name in row}
    idle = {name: trace.tensors[name] for _, name in places if name not in left}
    zeros = {n: torch.zeros_like(p, dtype=gradient_dtype(p)) for n, p in idle.items()}
    return kept, zeros


def matrices_of(
    config: Config,
    strategy: Strategy | None,
    source: GradientSource,
    groups: Sequence[Group],
    rows: Sequence[Named],
    use_up: bool,
) -> list[GradientMatrix]:
    """A gradient matrix per group.

    Args:
        config: the settings.
        strategy: what the matrices are for; None only inspects.
        source: where the gradients come from.
        groups: the groups.
        rows: per loss its gradients.
        use_up: whether they are taken out of `rows`, so that nothing else holds them.

    Raises:
        InputError: for a sparse gradient where a strategy looks at gradients.
    """
    losses = source.losses
    n = len(losses.names)
    place = {name: i for i, name in enumerate(losses.names)}
    found = []
    for group in groups:
        parameters = source.with_gradients(group.parameters)
        places = [place[o] for o in group.objectives]
        own = [rows[b * n + i] for b in range(losses.batches) for i in places]
        take = dict.pop if use_up else dict.get
        columns: list[list[Tensor | None]] = [
            [take(row, name, None) for name in parameters] for row in own
        ]
        blocks = False
        if strategy is not None and group.several(config.min_objectives):
            blocks = "block_grams" in strategy.inputs
            if source.sparse and strategy.needs_gradients:
                check_not_sparse(source.sparse, parameters, strategy.name, group.name)
        like, sparse = list(parameters.values()), frozenset[int]()
        odd = source.odd and source.odd & parameters.keys()
        if odd:
            like, sparse = in_coordinates(columns, parameters, odd, source.factored)
        inputs = layers_of(list(parameters), source.factored) if source.factored else {}
        formed = []
        if source.grams:
            formed = [(gram, places) for gram in _grams_by_device(source, group)]
        writable = None
        if use_up:
            writable = [None if n in odd else source.writable.pop(n, None) for n in parameters]
        batches = losses.batches
        blends = [source.mixed[n] for n in parameters if n in source.mixed]
        shared = blends[0].mixture.only(places) if blends else None
        mixed = {
            t: source.mixed[n].of(shared)
            for t, n in enumerate(parameters)
            if shared is not None and n in source.mixed
        }
        matrix = GradientMatrix(
            columns, like, blocks, batches, inputs, formed, sparse, writable, mixed
        )
        matrix.total = source.communicator.total
        if source.trace.spread is not None:
            matrix.form = partial(counted, source.trace.spread.portions(parameters))
        found.append(matrix)
    return found


def _grams_by_device(source: GradientSource, group: Group) -> list[Tensor]:
    """The sum of the Gram matrices of a group's tensors that are not kept, one per device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for name in group.parameters:
        if name in source.grams:
            by_device.setdefault(source.grams[name].device, []).append(source.grams[name])
    return [torch.stack(found).sum(0) for found in by_device.values()]

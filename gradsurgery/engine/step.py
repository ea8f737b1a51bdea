"""One step, up to but not including the writing: everything is computed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradsurgery.engine.by_group import from_gradients
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.checks import check_call, check_options, check_scores
from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.config import Config
from gradsurgery.engine.converted import check_attached
from gradsurgery.engine.deciding import check_step, tapped_of
from gradsurgery.engine.directions import from_passes, skipped, through_trunk
from gradsurgery.engine.filled import nothing_filled
from gradsurgery.engine.gathering import gather
from gradsurgery.engine.history import History
from gradsurgery.engine.in_metric import InMetric
from gradsurgery.engine.kept import Kept, kept_of
from gradsurgery.engine.known import known_weights
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.measure import with_grams
from gradsurgery.engine.per_example.profiles import check_examples
from gradsurgery.engine.scaler import scale_of
from gradsurgery.engine.solving import Solving
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.taps import find_taps, over_processes
from gradsurgery.engine.tracing import trace_graph
from gradsurgery.errors import OutOfRangeError
from gradsurgery.gradients.precision import without_autocast
from gradsurgery.gradients.rules.linear import RULE as LINEAR
from gradsurgery.record import Record


@dataclass(frozen=True)
class StepResult:
    """What a step would write, what it would remember, its Record, and its gradients if kept."""

    directions: list[tuple[Tensor, Tensor]]  # parameter and direction
    history: History
    record: Record
    kept: Kept | None = None


def run_step(
    config: Config,
    losses: Losses,
    history: History,
    communicator: SingleProcess,
    cache: TraceCache,
    *,
    features: dict[str, Tensor] | None = None,
    scores: Mapping[str, float] | None = None,
    scaler: Any = None,
    retain_graph: bool = False,
    stored: GradientSource | None = None,
    guard: str = "off",
    metric: InMetric | None = None,
) -> StepResult:
    """Everything that a step decides; nothing outside changes but the graph, freed unless retained.

    Args:
        config: the settings; a strategy of None decides nothing and only inspects.
        losses: the losses, or those of `stored`.
        history: what is known from the steps before.
        communicator: what is exchanged with other processes.
        cache: what is known of the last step's graph.
        features: the features by name.
        scores: the user's measure per modality.
        scaler: the user's GradScaler.
        retain_graph: whether the graph is needed afterwards.
        stored: the gradients that `accumulate` gathered, in place of a graph.
        guard: "report" keeps the gradients that there are for what comes after the optimizer,
            "correct" forms them where there are none, "off" keeps none.
        metric: in which problems are solved; None for the Euclidean one.
    """
    if stored is not None:
        called = f"combine of {stored.parts} micro-batches" + _with_optimizer(guard, metric)
        compared = called, config, history, stored.scale
        losses, trace, scores = communicator.agree(losses, stored.trace, scores, *compared)
        source = stored.shared(trace, losses, communicator)
        solving = Solving(config, source, history, scores, cache.warned, guard, metric)
        return _decide(config, source, solving, cache)
    strategy = config.strategy
    if history.step == 0 or losses.batches > 1 or (strategy and "cross" in strategy.inputs):
        check_call(config, losses, features)
    if config.decide_on is not None:
        check_step(features)
    if losses.examples is not None:
        check_examples(strategy, losses.examples, communicator.several)
    trace, history, graph = trace_graph(config, losses, history, features, cache)
    scale = None if scaler is None else scale_of(scaler, *losses.tensors[:1])
    if communicator.several and over_processes(config, features):
        layers = find_taps(graph, losses, trace, config, cache, LINEAR)
        layers = tapped_of(layers, trace, config.decide_on)
        communicator.propose(layers, trace, graph, config.method == "taps")
    called = "backward" + _with_optimizer(guard, metric) if strategy else "inspect"
    compared = called, config, history, scale
    losses, trace, scores = communicator.agree(losses, trace, scores, *compared)
    check_options(config, losses, history)
    source = GradientSource(trace, losses, communicator, graph, scale, retain_graph)
    solving = Solving(config, source, history, scores, cache.warned, guard, metric)
    if graph.written:
        with nothing_filled(trace.watched, graph.written):
            result = _decide(config, source, solving, cache)
    else:
        result = _decide(config, source, solving, cache)
    if scores is not None and history.step == 0 and strategy is not None:
        check_scores(strategy, scores, list(result.record.groups))
    return result


def gather_step(
    config: Config,
    losses: Losses,
    history: History,
    communicator: SingleProcess,
    cache: TraceCache,
    *,
    scaler: Any = None,
    retain_graph: bool = False,
) -> tuple[GradientSource, History]:
    """The gradients of one micro-batch, and the history with new parameters numbered."""
    check_call(config, losses, None)
    if losses.examples is not None:
        check_examples(config.strategy, losses.examples, communicator.several)
    trace, history, graph = trace_graph(config, losses, history, None, cache)
    scale = None if scaler is None else scale_of(scaler, *losses.tensors[:1])
    losses, trace, _ = communicator.agree(losses, trace, None, "accumulate", config, history, scale)
    check_options(config, losses, history)
    # sums stay in this process until they are combined; shards are reduced as they come
    alone = SingleProcess() if trace.spread is None else communicator
    source = GradientSource(trace, losses, alone, graph, scale, retain_graph)
    with nothing_filled(trace.watched if graph.written else {}, graph.written):
        source.per_loss(cache, batched=config.method == "batched")
    if len(found := set().union(*source.rows)) < len(trace.tensors):
        check_attached(graph, [(name, t) for name, t in trace.tensors.items() if name not in found])
    return source, history


def _decide(
    config: Config,
    source: GradientSource,
    solving: Solving,
    cache: TraceCache,
) -> StepResult:
    strategy, trace, graph, history = config.strategy, source.trace, source.graph, solving.history
    due = config.measure is not None and history.step % config.measure == 0
    due = due or solving.guard == "correct"
    try:
        live = strategy is not None and graph is not None
        # only a strategy that looks at no gradient, or a replay, can do without them
        gradients = not live or (config.required.needs_gradients and solving.replay is None)
        if not gradients and known_weights(config, source, solving):
            retain = source.retain_graph or due
            directions, record = from_passes(config, source, solving, retain)
            if due:
                record, solving.matrices = with_grams(config, source, record, cache)
        else:
            if graph is not None:
                gather(config, source, cache)
            with without_autocast(source.losses.tensors[0].device):
                directions, record = from_gradients(config, source, solving)
        if strategy is not None and trace.features:
            directions = through_trunk(config, source, directions, solving)
        if graph is not None and live and (trace.features or len(directions) < len(trace.tensors)):
            got = {id(trace.targets[name]) for name in directions}
            check_attached(graph, [(n, t) for n, t in trace.tensors.items() if id(t) not in got])
        if source.communicator.several:
            source.communicator.decided(solving.records.values())
        directions = source.communicator.publish(directions)
    except OutOfRangeError as error:
        if source.scale is None:
            raise
        source.communicator.failed(error)
        return StepResult(*skipped(config, source, solving))
    written = [(trace.targets[name], d) for name, d in directions.items()]
    kept = None if solving.guard == "off" else kept_of(config, source, solving)
    return StepResult(written, solving.advanced(), record, kept)


def _with_optimizer(guard: str, metric: InMetric | None) -> str:
    """What processes compare of a step with the optimizer's."""
    said = [] if guard == "off" else [f"guard={guard!r}"]
    said += [] if metric is None else ["metric='optimizer'"]
    return f" and step with {', '.join(said)}" if said else ""

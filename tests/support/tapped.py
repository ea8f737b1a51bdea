"""Which parameters a step taps."""

from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.config import config_of
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import parse_losses
from gradsurgery.engine.taps import find_taps
from gradsurgery.engine.tracing import trace_graph


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def tapped(model, losses, method="taps"):
    parsed = parse_losses(losses)
    config, cache = config_of("mgda", model, method=method), TraceCache()
    trace, _, graph = trace_graph(config, parsed, History(), None, cache)
    return set(find_taps(graph, parsed, trace, config, cache))

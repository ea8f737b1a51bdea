"""Which parameters a step taps."""

from gradsurgery.engine.config import config_of
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import parse_losses
from gradsurgery.engine.scene import look
from gradsurgery.engine.taps import find_taps


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def tapped(model, losses, method="taps"):
    parsed = parse_losses(losses)
    scene, _, graph = look(config_of("mgda", model), parsed, History())
    return set(find_taps(graph, parsed, scene, method))

"""A task whose figures follow from the learning rate alone: the best one is known."""

import math
import time
from dataclasses import replace

import torch
from torch import nn

from gradsurgery.tasks import Metric, Problem, task

STEPS = 2


class Way(nn.Module):
    """One number per loss; a step of plain descent on each adds the learning rate to it."""

    def __init__(self):
        super().__init__()
        self.way = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in ("a", "b")})
        self.shared = nn.Parameter(torch.zeros(()))


def losses(model, batch):
    return {name: -model.way[name] - 0.0 * model.shared for name in ("a", "b")}


def problem(best, above=math.inf, lower=False, error=None):
    """Figures that are best at the rate `best`; beyond `above` a run fails."""

    def figure(model, name):
        rate = model.way[name].item() / STEPS
        if rate > above:
            if error is not None:
                raise error
            return math.nan
        away = abs(math.log(rate / best)) if rate > 0 else 50.0
        return away if lower else -away

    metric = Metric("error" if lower else "score", higher=not lower)
    return Problem(
        model=Way,
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        batches=lambda: [None],
        losses=losses,
        evaluate=lambda model, split: {name: figure(model, name) for name in ("a", "b")},
        metrics={"a": metric, "b": metric},
        steps=STEPS,
    )


@task("way", steps=STEPS, lr=(0.02, 0.06), primary="a")
def way(data_root, seed):
    """The best rate is beyond the upper edge of the first six, at 0.2."""
    return problem(0.2)


@task("slow-way", steps=STEPS, lr=(0.02, 0.06), primary="a")
def slow_way(data_root, seed):
    """The same, where a step takes 20 ms of waiting."""

    def waiting(model, batch):
        time.sleep(0.02)
        return losses(model, batch)

    return replace(problem(0.2), losses=waiting)

"""A comparison on a line fitted to noise: a task that trains in a moment."""

import torch
from torch import nn

from gradsurgery.tasks import Problem


def line_losses(model, batch):
    error = (model(batch[0]) - batch[1]).pow(2).mean(0)
    return {"up": error[0], "down": error[1]}


def rmse(model, examples):
    return {name: loss.item() ** 0.5 for name, loss in line_losses(model, examples).items()}


def problem(metrics=rmse, losses=line_losses, rows=64, chance=1.0, **settings):
    x = torch.linspace(-1, 1, rows)[:, None]
    data = (x, torch.cat([2 * x, -x], 1))
    return Problem(
        data,
        data,
        data,
        lambda: nn.Linear(1, 2),
        lambda p, lr: torch.optim.SGD(p, lr=lr),
        losses,
        metrics,
        chance,
        **settings,
    )


def loader(**settings):
    return lambda data_root=None: problem(**settings)


def no_problem(data_root=None):
    return None

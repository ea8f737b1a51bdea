"""A model whose parts, losses and settings change between steps."""

import torch
from torch import nn


class Changing(nn.Module):
    """A trunk and heads, of which everything may change between two steps."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "abc"})
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.own = True

    def losses(self, order, x):
        z = self.trunk(x)
        return {
            name: (self.heads[name](z) * (self.scale if self.own else 1.0)).pow(2).mean()
            for name in order
        }


def description(record):
    return [
        (
            g.name,
            g.objectives,
            g.strategy,
            g.parameters,
            None if g.weights is None else g.weights.round(9).tolist(),
        )
        for g in record.values()
    ]

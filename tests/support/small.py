"""A trunk of two layers and two heads, in float64."""

import torch
from torch import nn

F64 = torch.float64


class Small(nn.Module):
    """A trunk of two layers and two heads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.a, self.b = nn.Linear(5, 1), nn.Linear(5, 1)
        self.double()

    def of(self, z):
        return {"a": self.a(z.tanh()).exp().mean(), "b": (self.b(z) - 1).pow(2).mean()}


def x(rows=7):
    return torch.randn(rows, 4, dtype=F64, generator=torch.Generator().manual_seed(1))

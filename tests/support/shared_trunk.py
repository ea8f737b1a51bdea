"""A trunk that three heads share, and comparisons of its gradients."""

import torch
from torch import nn

F64 = torch.float64


def flat_grads(parameters):
    return torch.cat([p.grad.reshape(-1) for p in parameters])


def close(found, expected, tolerance=1e-9):
    assert float((found - expected).norm()) <= tolerance * float(expected.norm()), (found, expected)


class SharedTrunk(nn.Module):
    """A trunk, and a head for each of three losses."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in "abc"})
        self.double()

    def losses(self, seed=0, z=None):
        torch.manual_seed(seed)
        x, targets = torch.randn(7, 4, dtype=F64), torch.randn(3, 7, 1, dtype=F64)
        z = self.trunk(x) if z is None else z(self.trunk(x))
        return {
            name: (self.heads[name](z.tanh()) - t).pow(2).mean()
            for name, t in zip("abc", targets, strict=True)
        }, z

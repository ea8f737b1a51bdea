"""A trunk and three heads, one of which may have no labels."""

import torch
from torch import nn

F64 = torch.float64


class Tasks(nn.Module):
    """A trunk and three heads; `b` is multiplied by a mask, which is 0 where it has no labels."""

    def __init__(self, dtype=F64):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in "abc"})
        self.to(dtype)

    def losses(self, b=0.0, seed=0, only="abc", z=None):
        generator = torch.Generator().manual_seed(seed)
        x, targets = (
            torch.randn(7, 4, generator=generator, dtype=F64),
            torch.randn(3, 7, 1, generator=generator, dtype=F64),
        )
        dtype = self.heads["a"].weight.dtype
        z = self.trunk(x.to(dtype)) if z is None else z(self.trunk(x.to(dtype)))
        found = {
            name: (self.heads[name](z) - t.to(dtype)).pow(2).mean()
            for name, t in zip("abc", targets, strict=True)
        }
        found["b"] = b * found["b"]
        return {name: found[name] for name in only}


def trunk(model):
    return torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()])

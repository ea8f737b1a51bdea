"""Parameters and gradients for one optimizer's steps."""

import torch
from torch import nn

SHAPES = ((3, 4), (5,), (2, 1, 3))


def parameters(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    return [nn.Parameter(1e-3 * tensor) for tensor in made]  # steps are read to many digits


def gradients(step, dtype=torch.float64):
    """Of sizes over six orders of magnitude, so that no two coordinates are alike."""
    generator = torch.Generator().manual_seed(100 + step)
    sizes = [
        10 ** (3 * torch.rand(shape, generator=torch.Generator().manual_seed(7)) - 2)
        for shape in SHAPES
    ]
    return [
        (torch.randn(size.shape, generator=generator, dtype=dtype) * size).to(dtype)
        for size in sizes
    ]


def stepped(optimizer, params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    optimizer.step()

"""Models whose gradients are known: Gaussian around given means, with given noise."""

import torch
from torch import nn


class Plane(nn.Module):
    """A vector w; a loss ⟨w, g⟩ has the gradient g, whatever w is."""

    def __init__(self, d):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(d, dtype=torch.float64))


def losses(model, batch):
    """A batch is a dict of objective -> its gradient."""
    return {name: model.w @ gradient for name, gradient in batch.items()}


def batches(means, noise, count, seed, shared=0.0):
    """Batches of gradients: mean + noise per objective, with tr Cov = noise² each.

    Args:
        means: name -> mean gradient [d].
        noise: the root of tr Cov.
        count: how many batches.
        seed: of the noise.
        shared: the correlation of the noise of the first objective with that of every other.
    """
    generator = torch.Generator().manual_seed(seed)
    d = len(next(iter(means.values())))
    for _ in range(count):
        own = torch.randn(len(means), d, generator=generator, dtype=torch.float64) * noise / d**0.5
        own[1:] = shared * own[:1] + (1 - shared**2) ** 0.5 * own[1:]
        yield {name: mean + own[i] for i, (name, mean) in enumerate(means.items())}


def two_means(cosine, d, length=1.0):
    """Two mean gradients with a given cosine; the second has the given length."""
    means = torch.zeros(2, d, dtype=torch.float64)
    means[0, 0] = 1.0
    means[1, 0], means[1, 1] = length * cosine, length * (1 - cosine**2) ** 0.5
    return {"a": means[0], "b": means[1]}

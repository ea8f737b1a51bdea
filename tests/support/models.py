"""Small models on real-looking data: two encoders, and a tree of trunks."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy


class TwoEncoders(nn.Module):
    """Encoders `audio` and `visual`, a fusion head, two unimodal heads; one unused and one frozen
    layer.
    """

    def __init__(self, seed=0, width=6, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(seed)
        self.audio = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width))
        self.visual = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width))
        self.audio_head, self.visual_head, self.fusion = (
            nn.Linear(width, 3),
            nn.Linear(width, 3),
            nn.Linear(2 * width, 3),
        )
        self.unused, self.frozen = nn.Linear(2, 2), nn.Linear(width, width).requires_grad_(False)
        self.to(dtype)

    def losses(self, seed=0, rows=8):
        generator = torch.Generator().manual_seed(seed)
        dtype = self.fusion.weight.dtype
        x, y = (torch.randn(rows, k, generator=generator, dtype=dtype) for k in (4, 5))
        labels = torch.randint(
            3, (3, rows), generator=generator
        )  # three labels, so that conflict happens
        a, v = self.frozen(self.audio(x)), self.visual(y)
        return {
            "fused": cross_entropy(self.fusion(torch.cat([a, v], 1)), labels[0]),
            "audio": cross_entropy(self.audio_head(a), labels[1]),
            "visual": cross_entropy(self.visual_head(v), labels[2]),
        }


class Tree(nn.Module):
    """A root that all four tasks share, a branch for each pair, a head for each task."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.root = nn.Linear(3, 5)
        self.left, self.right = nn.Linear(5, 4), nn.Linear(5, 4)
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "abcd"})
        self.double()

    def losses(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        targets = torch.randn(4, 6, 1, generator=generator, dtype=torch.float64)
        shared = self.root(x).tanh()
        branch = {"a": self.left, "b": self.left, "c": self.right, "d": self.right}
        return {
            name: (self.heads[name](branch[name](shared).tanh()) - target).pow(2).mean()
            for name, target in zip("abcd", targets, strict=True)
        }


def gradients_of(losses, parameters):
    """Each loss's gradients by torch.autograd.grad, the independent reference; None where it does
    not reach.
    """
    parameters = list(parameters)
    trained = [p for p in parameters if p.requires_grad]
    found = {
        name: iter(torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True))
        for name, loss in losses.items()
    }
    return {
        name: [next(gradients) if p.requires_grad else None for p in parameters]
        for name, gradients in found.items()
    }


def flat(gradients):
    return torch.cat([g.reshape(-1) for g in gradients])


def min_norm_point(first, second):
    """The closed form for two gradients, written out."""
    difference = first - second
    share = ((second @ second - first @ second) / (difference @ difference)).clamp(0, 1)
    return share * first + (1 - share) * second


def grads(module):
    return {
        name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()
    }


def same(before, after):
    return before.keys() == after.keys() and all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in ((before[k], after[k]) for k in before)
    )


def by_loss(losses, tensors):
    """Each loss's gradients of some tensors, flattened [n, d]; zeros where it does not reach.

    The graph is kept.
    """
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(t) if g is None else g).reshape(-1)
                    for t, g in zip(tensors, found, strict=True)
                ]
            )
        )
    return torch.stack(rows)


def both(first, second):
    """The gradients of two models in pairs, where they have any."""
    first, second = grads(first), grads(second)
    assert {n for n, g in first.items() if g is None} == {n for n, g in second.items() if g is None}
    return [(first[n], second[n]) for n in first if first[n] is not None]

"""Random graphs of shared modules with frozen parts, and losses that come, go and change order, against a plain reference."""

import random

import pytest
import torch
from models import flat
from torch import nn

import gradsurgery as gs
from gradsurgery.solvers import min_norm


def random_losses(modules, paths, rnd):
    """Some of the losses, in some order; each walks its own path through the shared modules."""
    x = torch.randn(5, 4, dtype=torch.float64)
    losses = {}
    for i in rnd.sample(range(len(paths)), rnd.randint(1, len(paths))):
        hidden = x
        for k in paths[i]:
            hidden = modules[k](hidden).tanh()
        loss = hidden.pow(2).mean() * 10 ** rnd.uniform(-3, 3)
        if loss.requires_grad:
            losses[f"loss{i}"] = loss
    return losses


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed, strategy):
    rnd = random.Random(seed)
    torch.manual_seed(seed)
    modules = nn.ModuleList(nn.Linear(4, 4) for _ in range(rnd.randint(1, 7))).double()
    for p in list(modules.parameters())[1:]:
        p.requires_grad_(rnd.random() > 0.15)
    paths = [[rnd.randrange(len(modules)) for _ in range(rnd.randint(1, 4))] for _ in range(rnd.randint(2, 6))]
    surgery = gs.Surgery(strategy, rnd.choice([modules, None, list(modules.parameters())]))
    trained = [p for p in modules.parameters() if p.requires_grad]
    union = [frozenset()] * len(trained)
    for _ in range(4):
        losses = random_losses(modules, paths, rnd)
        if not losses:
            continue
        reference = {n: torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True) for n, loss in losses.items()}
        reached = [frozenset(n for n in losses if reference[n][i] is not None) for i in range(len(trained))]
        union = [before | now for before, now in zip(union, reached, strict=True)]
        modules.zero_grad()
        surgery.backward(losses)
        for group in {u for u, now in zip(union, reached, strict=True) if now}:
            members = [i for i, u in enumerate(union) if u == group]
            names = [n for n in losses if any(reference[n][i] is not None for i in members)]
            rows = torch.stack([flat(reference[n][i] if reference[n][i] is not None else torch.zeros_like(trained[i]) for i in members) for n in names])
            weights = torch.ones(len(names), dtype=torch.float64)
            if strategy == "mgda" and len(names) > 1:
                weights = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value)
            found = flat(torch.zeros_like(trained[i]) if trained[i].grad is None else trained[i].grad for i in members)
            expected = weights @ rows
            assert (found - expected).norm() <= 1e-6 * (expected.norm() + 1e-3 * rows.norm())
        assert all((p.grad is not None) == bool(now) for p, now in zip(trained, reached, strict=True))

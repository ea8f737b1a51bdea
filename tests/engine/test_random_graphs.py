"""500 random graphs of shared modules with frozen parts, and losses that come, go and change order,
against a plain reference.
"""

import random
import string

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.solvers import min_norm
from tests.support.models import flat


def random_name(rnd):
    return "".join(rnd.choice(string.printable) for _ in range(rnd.randint(0, 9)))


def random_paths(modules, count, rnd):
    """For each loss the modules it goes through: any at all, or from a leaf of a random tree up to
    its root.
    """
    if rnd.random() < 0.5:
        return [[rnd.randrange(modules) for _ in range(rnd.randint(1, 4))] for _ in range(count)]
    parent = [None] + [rnd.randrange(k) for k in range(1, modules)]
    paths = []
    for _ in range(count):
        node, path = rnd.randrange(modules), []
        while node is not None:
            path.insert(0, node)
            node = parent[node]
        paths.append(path)
    return paths


def random_losses(modules, paths, names, rnd):
    """Some of the losses, in some order; each walks its own path through the modules, which share
    what they computed.
    """
    x = torch.randn(5, 4, dtype=torch.float64)
    computed = {}
    losses = {}
    for i in rnd.sample(range(len(paths)), rnd.randint(1, len(paths))):
        hidden, walked = x, ()
        for k in paths[i]:
            walked = (*walked, k)
            hidden = computed.setdefault(walked, modules[k](hidden).tanh())
        loss = hidden.pow(2).mean() * 10 ** rnd.uniform(-3, 3)
        if loss.requires_grad:
            losses[names[i]] = loss
    return losses


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
@pytest.mark.parametrize("seed", range(250))
def test_random_graphs(seed, strategy):
    rnd = random.Random(seed)
    torch.manual_seed(seed)
    modules = nn.ModuleList(nn.Linear(4, 4) for _ in range(rnd.randint(1, 7))).double()
    for p in list(modules.parameters())[1:]:
        p.requires_grad_(rnd.random() > 0.15)
    paths = random_paths(len(modules), rnd.randint(2, 6), rnd)
    names = []
    while len(names) < len(paths):
        names += [name for name in [random_name(rnd)] if name not in names]
    surgery = gs.Surgery(strategy, rnd.choice([modules, None, list(modules.parameters())]))
    trained = [p for p in modules.parameters() if p.requires_grad]
    union = [frozenset()] * len(trained)
    for _ in range(4):
        losses = random_losses(modules, paths, names, rnd)
        if not losses:
            continue
        reference = {
            n: torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
            for n, loss in losses.items()
        }
        reached = [
            frozenset(n for n in losses if reference[n][i] is not None) for i in range(len(trained))
        ]
        union = [before | now for before, now in zip(union, reached, strict=True)]
        modules.zero_grad()
        surgery.backward(losses)
        for group in {u for u, now in zip(union, reached, strict=True) if now}:
            members = [i for i, u in enumerate(union) if u == group]
            present = [n for n in losses if any(reference[n][i] is not None for i in members)]
            rows = torch.stack(
                [
                    flat(
                        reference[n][i]
                        if reference[n][i] is not None
                        else torch.zeros_like(trained[i])
                        for i in members
                    )
                    for n in present
                ]
            )
            weights = torch.ones(len(present), dtype=torch.float64)
            if strategy == "mgda" and len(present) > 1:
                weights = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value)
            found = flat(
                torch.zeros_like(trained[i]) if trained[i].grad is None else trained[i].grad
                for i in members
            )
            expected = weights @ rows
            assert (found - expected).norm() <= 1e-6 * (expected.norm() + 1e-3 * rows.norm())
        assert all(
            (p.grad is not None) == bool(now) for p, now in zip(trained, reached, strict=True)
        )

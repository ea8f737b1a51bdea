"""Compiled regions: one pass only, replays, parameters without elements."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.small import F64, Small, x


@pytest.mark.exhaustive  # imports torch and its compiler once more
def test_a_region_for_one_pass_behind_another_region():
    """In a process of its own, where the package comes after the forward pass."""
    code = """
import torch, warnings
warnings.simplefilter("ignore")
from torch import nn
trunk = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU())
head = nn.Linear(8, 2)
z = torch.compile(trunk, backend="aot_eager")(torch.randn(5, 4))
out = torch.compile(head, backend="aot_eager")(z)
import gradsurgery as gs
try:
    gs.backward(dict(zip("ab", out.pow(2).mean(0))), list(trunk.parameters()), "mgda")
except gs.InputError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "allows one backward pass only" in ran.stdout, ran.stderr


def test_inside_an_autocast_region():
    rows = torch.randn(3, 1 << 18)
    for name in ("moco", "cagrad", "mgda"):
        found = []
        for inside in (False, True):
            p = nn.Parameter(torch.zeros(1 << 18))
            losses = {n: (p * row).sum() + 1 for n, row in zip("abc", rows, strict=True)}
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                gs.Surgery(name, [p]).backward(losses)
                found.append(p.grad)
            strategy = gs.get_strategy(name)
            extra = {"state": gs.State()} if "state" in strategy.inputs else {}
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                alone = strategy(rows, losses=[1.0, 1.0, 1.0], **extra)
            assert float((alone - p.grad).norm()) <= 1e-5 * float(p.grad.norm()), name
        assert float((found[0] - found[1]).norm()) <= 1e-6 * float(found[0].norm()), name


@pytest.mark.parametrize("strategy", ["random", "uw", "mgda"])
def test_every_behind_a_compiled_region(strategy):
    model = Small()
    unused = nn.Parameter(torch.zeros(2, dtype=F64))
    data = x()

    def losses():
        found = model.of(model.trunk(data))
        return found["a"] + 0 * unused.sum(), found["b"]

    found = []
    for call in (torch.compile(losses, backend="aot_eager", fullgraph=True), losses):
        surgery = gs.Surgery(strategy, [*model.parameters(), unused], every=2)
        for _ in range(4):
            model.zero_grad()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                record = surgery.backward(dict(zip("ab", call(), strict=True)))
            found.append((record["a+b"].replayed, [p.grad.clone() for p in model.parameters()]))
    for compiled, eager in zip(found[:4], found[4:], strict=True):
        assert compiled[0] == eager[0]
        assert all(torch.allclose(a, b) for a, b in zip(compiled[1], eager[1], strict=True))
    assert [r for r, _ in found[:4]] == [False, True, False, True]


def test_an_empty_parameter_behind_a_compiled_region():
    p, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(0))

    def losses():
        return p.sum() + empty.sum(), -p[0] + empty.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.compile(losses, backend="aot_eager", fullgraph=True)()
    gs.backward(dict(zip("ab", found, strict=True)), [p, empty], "mgda")
    assert p.grad is not None

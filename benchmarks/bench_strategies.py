"""pytest-benchmark: every strategy, from gradients given as rows to the direction, d = 100,000."""

import pytest
import torch

import gradsurgery as gs

OPTIONS = {"a-gem": {"objective": "0"}, "dgl": {"joint": "0"}}


@pytest.mark.parametrize("name", gs.strategy_names())
def test_strategy(benchmark, name):
    benchmark.group = "strategies, n = 8, d = 100,000"
    strategy = gs.get_strategy(name, **OPTIONS.get(name, {}))
    rows = torch.randn(8, 100_000, generator=torch.Generator().manual_seed(0))
    if "cross" in strategy.inputs:
        rows = rows.expand(3, -1, -1).clone()
    inputs = {"losses": [1.0 + i for i in range(8)]} if "losses" in strategy.inputs else {}
    inputs |= {"state": gs.State()} if "state" in strategy.inputs else {}
    inputs |= {"scores": {"all": 0.5, "other": 1.0}} if "scores" in strategy.inputs else {}
    assert torch.isfinite(benchmark(lambda: strategy(rows, **inputs))).all()

"""What rows have of the course of a run, which changes nothing of the run."""

import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.compare import Plan
from gradsurgery.compare.along import untouched
from gradsurgery.compare.cell import Problems, run_cell
from gradsurgery.compare.memory import Peak
from gradsurgery.compare.plan import Run
from gradsurgery.tasks import task, task_names
from tests.support.protocol import Net, figures, two_modalities

pytestmark = pytest.mark.quick


class Drops(Net):
    """With dropout, so that a random number more or less shows; and a layer that stays frozen."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4).eval()

    def forward(self, x):
        noisy = nn.functional.dropout(self.norm(x), 0.3, training=True)
        return super().forward(noisy)


@pytest.fixture
def trained(monkeypatch):
    """(evaluations, settings of the problem) -> the row of a run, and modes of its frozen layer."""
    task_names()
    module = sys.modules["gradsurgery.tasks.task"]
    monkeypatch.setattr(module, "_tasks", dict(module._tasks))
    frozen = []

    def made(evaluations, kind="run", **settings):
        def tried(data_root, seed):
            def after(model):
                frozen.append(model.norm.training)

            return two_modalities(data_root, seed, model=Drops, after_step=after, **settings)

        task("tried", steps=8, lr=0.1, primary="fused")(tried)
        plan = Plan.of(["tried"], ["mgda"], [3], evaluations=evaluations)
        run = Run("tried", "mgda", 3, 0.1, None, 8, None, kind)
        return run_cell(plan, run, Problems(plan), lambda *seen: None, ()), frozen

    return made


def test_evaluations_change_no_figure_no_key_and_no_frozen_layer(trained):
    plain, _ = trained(0)
    along_too, frozen = trained(4)
    assert "along" not in plain
    for name in ("key", "validation", "test", "mean_cosine", "conflict_rate", "trace", "steps"):
        assert along_too[name] == plain[name], name
    along = along_too["along"]
    assert along["steps"] == [2, 4, 6, 8]
    assert along["seconds"] == sorted(along["seconds"])
    assert along["seconds"][-1] == pytest.approx(along_too["seconds"], abs=1e-3)
    assert {name: values[-1] for name, values in along["validation"].items()} == (
        along_too["validation"]
    )
    assert len({len(values) for values in along["validation"].values()}) == 1
    assert not any(frozen)


def test_random_numbers_of_an_evaluation_are_taken_back():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1).eval())

    def draws():
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(5)
    with untouched(model):
        model.train()
        first = draws()
    assert draws() == first
    assert [module.training for module in model] == [True, False]


def test_a_task_that_cannot_be_evaluated_yet_is_asked_no_more(trained):
    asked = []

    def evaluate(model, split):
        asked.append(split)
        found = figures(model, {"x": torch.ones(2, 4), "y": torch.ones(2).long()})
        return {**found, "fused": float("nan")} if len(asked) == 1 else found

    row, _ = trained(4, evaluate=evaluate)
    assert "error" not in row
    assert row["along"]["steps"] == [8]
    assert asked == ["validation", "validation", "test"]


def test_the_trace_has_what_the_rates_are_means_of(trained):
    row, _ = trained(0)
    assert set(row["trace"]) == set(row["conflict_rate"]) != set()
    for name, kept in row["trace"].items():
        assert kept["steps"] == list(range(8))  # short runs are inspected at each step
        mean = sum(kept["cosine"]) / len(kept["cosine"])
        assert mean == pytest.approx(row["mean_cosine"][name], abs=1e-3)
        rate = sum(share > 0 for share in kept["conflict"]) / len(kept["conflict"])
        assert rate == pytest.approx(row["conflict_rate"][name])  # any pair
    tuned, _ = trained(4, kind="tune")
    assert "trace" not in tuned
    assert "along" not in tuned


def test_the_peak_of_memory_begins_anew():
    peak = Peak()
    large = torch.ones(16 * 2**20)  # 64 MB
    with_it = peak.as_dict("cpu")
    del large
    assert with_it["peak_mb"] > 64
    assert set(with_it) == {"peak_mb", "since"}
    if with_it["since"] == "run":
        assert Peak().as_dict()["peak_mb"] < with_it["peak_mb"]


def test_evaluations_are_a_number():
    with pytest.raises(
        gs.InputError, match="evaluations: expected a whole number, 0 or more; got -1"
    ):
        Plan.of(["multimnist"], ["sum"], [0], evaluations=-1)

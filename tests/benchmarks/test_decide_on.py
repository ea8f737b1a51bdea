"""What the page on decide_on= compares is what steps give; its tables are those of its runs."""

import importlib
import sys

import pytest
import torch

import gradsurgery as gs
from benchmarks import decide_on
from tests.support.paths import DOCS


def test_the_directions_that_are_compared_are_those_of_steps():
    torch.manual_seed(0)
    images, labels = torch.randn(6, 1, 28, 28), torch.randint(10, (6, 2))
    trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 3))
    model = decide_on.Digits(trunk, 3, 4)
    part = [model.trunk[1].bias]
    found = {}
    for name, settings in {"full": {}, "part": {"decide_on": part}, "sum": None}.items():
        model.zero_grad()
        losses = model.losses((images, labels))
        if settings is None:
            sum(losses.values()).backward()
        else:
            gs.backward(losses, model, "mgda", **settings)
        found[name] = torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()])
    losses = model.losses((images, labels))
    name = "+".join(sorted(losses))
    grams = [gs.inspect(losses, given)[name].gram for given in (model, part)]
    figures = decide_on.compared(*grams, "mgda")
    for a, b in (("full", "part"), ("full", "sum"), ("part", "sum")):
        cosine = torch.cosine_similarity(found[a], found[b], 0)
        assert figures[f"{a}, {b}"] == pytest.approx(float(cosine), abs=1e-4)
    assert figures["full, part"] < 0.999


def test_the_tables_are_those_of_the_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module("decide_on")
    for name, text in page.parts(page.kept()).items():
        assert (DOCS / "decide_on" / f"{name}.txt").read_text() == text
    sys.modules.pop("decide_on")

"""The examples, run as a user would: on real digits, in full."""

import json
import re

import pytest

from tests.support.paths import EXAMPLES

SCRIPTS = ["multimodal_cgmnist.py", "multitask_multimnist.py"]


@pytest.fixture
def run(fresh):
    """Run a script with its arguments."""

    def ran(script, *arguments):
        return fresh.program(EXAMPLES / script, *arguments, COLUMNS="120")

    return ran


def accuracies(output):
    return {
        name: float(value)
        for name, value in re.findall(r"(\w+) ([\d.]+) %", output.splitlines()[-1])
    }


@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [("sum", 1), ("mmpareto", 1), pytest.param("mmpareto", 3, marks=pytest.mark.exhaustive)],
)
@pytest.mark.slow
def test_cgmnist_learns(run, strategy, epochs):
    code, out, err = run("multimodal_cgmnist.py", "--strategy", strategy, "--epochs", epochs)
    assert code == 0, err
    found = accuracies(out)
    assert set(found) == {"fused", "gray", "colour"}
    assert found["gray"] >= {1: 18, 3: 75}[epochs]  # chance is 10 +- 1
    if epochs == 3:
        assert min(found.values()) > 20  # the shortcut fails at test, but never to chance
    if strategy != "sum":  # which looks at no gradient
        assert re.search(r"steps in conflict: fused\+gray \d+ of 55", out)


@pytest.mark.parametrize("epochs", [1, pytest.param(3, marks=pytest.mark.exhaustive)])
@pytest.mark.slow
def test_multimnist_learns(run, epochs):
    code, out, err = run("multitask_multimnist.py", "--epochs", epochs)
    assert code == 0, err
    assert min(accuracies(out).values()) >= {1: 40, 3: 70}[epochs]
    assert "left+right" in out


def test_help_and_wrong_names(run, tmp_path):
    for script in SCRIPTS:
        code, out, _ = run(script, "--help")
        assert code == 0
        assert "--strategy" in out
        assert "--data-root" in out
        code, _, err = run(script, "--strategy", "mmparetto")
        assert code != 0
        assert "mmpareto" in err
        code, _, err = run(script, "--data-root", tmp_path)
        assert code != 0
        assert "train-images" in err


@pytest.mark.slow
def test_toy_runs_and_draws(run, tmp_path):
    """20 of the 50,000 steps: every strategy moves, and what is written is what is shown."""
    # one process, since each imports torch
    settings = ("--steps", 20, "--processes", 1, "--out", tmp_path / "toy")
    code, out, err = run("toy.py", *settings)
    assert code == 0, err
    outcomes = json.loads((tmp_path / "toy" / "outcomes.json").read_text())
    assert set(outcomes["ends"]["nash"]) >= {
        "sum",
        "mgda",
        "nash-mtl",
        "imtl-g",
        "aligned-mtl",
        "config",
        "pcgrad",
    }
    for version, ends in outcomes["ends"].items():
        for found in ends.values():
            for start, end in zip(outcomes["starts"][version], found, strict=True):
                moved = max(abs(a - b) for a, b in zip(start, end["x"], strict=True))
                assert 0.012 < moved < 0.06  # Adam at 1e-3
    assert (tmp_path / "toy" / "toy.png").stat().st_size > 50_000
    assert "nash-mtl" in out

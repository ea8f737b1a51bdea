"""The examples, run as a user would: on real digits, in full."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import EXAMPLES

SCRIPTS = ["multimodal_cgmnist.py", "multitask_multimnist.py"]


def run(script, *arguments):
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}
    )
    return done.returncode, done.stdout, done.stderr


def accuracies(output):
    return {
        name: float(value)
        for name, value in re.findall(r"(\w+) ([\d.]+) %", output.splitlines()[-1])
    }


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sum", "mmpareto"])
def test_cgmnist_learns(strategy):
    code, out, err = run("multimodal_cgmnist.py", "--strategy", strategy)
    assert code == 0, err
    found = accuracies(out)
    assert set(found) == {"fused", "gray", "colour"}
    assert found["gray"] >= 75
    assert min(found.values()) > 20  # the shortcut fails at test, but never to chance
    if strategy != "sum":  # which looks at no gradient
        assert re.search(r"steps in conflict: fused\+gray \d+ of 55", out)


@pytest.mark.slow
def test_multimnist_learns():
    code, out, err = run("multitask_multimnist.py")
    assert code == 0, err
    assert min(accuracies(out).values()) >= 70
    assert "left+right" in out


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_names(script, tmp_path):
    code, out, _ = run(script, "--help")
    assert code == 0
    assert "--strategy" in out
    assert "--data-root" in out
    code, _, err = run(script, "--strategy", "mmparetto")
    assert code != 0
    assert "mmpareto" in err
    code, _, err = run(script, "--data-root", str(tmp_path))
    assert code != 0
    assert "train-images" in err


@pytest.mark.slow
def test_toy_runs_and_draws(tmp_path):
    """500 of the 50,000 steps: every strategy moves, and what is written is what is shown."""
    import json

    code, out, err = run("toy.py", "--steps", "500", "--out", str(tmp_path / "toy"))
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
                assert 0.3 < moved < 1.5  # Adam at 1e-3
    assert (tmp_path / "toy" / "toy.png").stat().st_size > 50_000
    assert "nash-mtl" in out

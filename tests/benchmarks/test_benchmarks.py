"""The benchmarks' models under every way of forming Gram matrices, and their probes."""

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import gradsurgery as gs
from benchmarks import gpu, growth, memory, multimodal, peers
from benchmarks.models import CASES
from tests.support.mmpareto import official_procedure

FEWER = {"resnet-18, batch 32": (4, 3, 16, 16)}  # its layers are the point, not its size


def step(name, n, **settings):
    case = CASES[name]
    model, forward = replace(case, shape=FEWER.get(name, case.shape)).build(n)
    record = gs.backward(forward(), model, "upgrad", **settings)
    return {key: p.grad for key, p in model.named_parameters()}, record


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_taps_and_low_memory_equal_gradients(name):
    n = 4 if len(CASES[name].objectives) > 1 else 3
    expected, record = step(name, n, method="gradients")
    for settings in (
        {"method": "taps"},
        {"method": "auto"},
        {"memory": "low"},
        {"memory": "low", "method": "gradients"},
    ):
        found, other = step(name, n, **settings)
        for group in record:
            size = abs(record[group].gram).max()
            assert abs(record[group].gram - other[group].gram).max() <= 1e-5 * size, (
                settings,
                group,
            )
        for key, gradient in expected.items():
            assert float((gradient - found[key]).norm()) <= 1e-5 * float(gradient.norm()), (
                settings,
                key,
            )


def test_the_floor_and_the_passes_are_what_they_say():
    model, forward = CASES["lenet, batch 256"].build(3)
    peers.floor(model, forward())
    halves = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    peers.plain(model, forward())
    assert all(
        torch.allclose(2 * halves[key], p.grad, rtol=1e-4, atol=1e-6)
        for key, p in model.named_parameters()
    )
    assert len(peers.passes(model, forward())) == 3
    with pytest.warns(UserWarning, match="fails: ZeroDivisionError"):
        found = peers.medians(
            model, forward, {"sum": peers.surgery("sum"), "fails": lambda model, losses: 1 / 0}, 3
        )
    assert found["sum"] > 0
    assert "fails" not in found


def test_the_official_procedure_is_timed_on_the_right_names():
    model, forward = CASES["two encoders, batch 64"].build(3)
    multimodal.official(model, forward())
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    peers.surgery("mmpareto(rescale='tensor')")(model, forward())
    assert all(
        torch.allclose(expected[key], p.grad, rtol=1e-4, atol=1e-6)
        for key, p in model.named_parameters()
    )
    assert official_procedure is multimodal.official_procedure


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the probe reads /proc")
def test_the_probe_sees_what_a_step_takes():
    sizes = {
        case: memory.measured(case, 4, 512, 8)
        for case in ("sum().backward()", "ours, gradients", "ours, taps")
    }
    parameters = 4 * sum(p.numel() for p in memory.build(512, 8, 4).parameters())
    assert 0.8 * parameters <= sizes["sum().backward()"] <= 1.6 * parameters
    assert sizes["ours, gradients"] >= 4 * parameters
    assert sizes["ours, taps"] <= 3 * parameters


def test_the_gpu_run_goes_through_on_the_cpu(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        gpu,
        "QUICK",
        {"two encoders, batch 8": replace(CASES["two encoders, batch 64"], shape=(8, 4, 32, 32))},
    )
    gpu.main(device="cpu", quick=True, tests=False, out=tmp_path / "gpu.json")
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [(row["n"], row["precision"]) for row in found["steps"]] == [
        (3, "float32"),
        (3, "bfloat16 autocast"),
    ]
    assert all(row["milliseconds"][name] > 0 for row in found["steps"] for name in gpu.OURS)
    assert set(found["syncs"].values()) == {None}
    with pytest.raises(typer.BadParameter, match="name another file"):
        gpu.main(device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(typer.BadParameter, match="no CUDA device"):
            gpu.main()


def test_the_gpu_figures_that_are_kept_name_the_card_and_passed_the_marked_tests():
    kept = json.loads((Path(gpu.ROOT) / "docs" / "speed" / "gpu.json").read_text())
    assert "NVIDIA" in kept["machine"]
    assert kept["tests"]["passed"] == kept["tests"]["tests"] > 0
    assert {row["n"] for row in kept["steps"]} == {2, 3, 4, 8}


def test_exponents():
    assert math.isclose(growth.exponent([2, 4, 8], [3.0, 12.0, 48.0]), 2.0)
    assert math.isclose(growth.exponent([10, 1000], [5.0, 5.0]), 0.0, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("peers", ["--models", "mlp;nosuch"], "nosuch"),
        ("peers", ["--objectives", "2,x"], "whole numbers from 2 on"),
        ("peers", ["--objectives", "0"], "whole numbers from 2 on"),
        ("growth", ["--objectives", "4"], "several whole numbers"),
        ("growth", ["--layers", "0,1"], "several whole numbers from 1"),
        ("memory", ["--width", "0"], "--width"),
    ],
)
def test_wrong_options_say_what_to_give(module, arguments, said, tmp_path):
    app = typer.Typer()
    app.command()(importlib.import_module(f"benchmarks.{module}").main)
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out.json")])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())

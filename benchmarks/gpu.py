"""What needs a GPU, in one run: the tests marked `gpu`, the time of a step, and its host syncs.

`python -m benchmarks.gpu` (or `nox -s gpu`) takes under 8 minutes on one GPU with torch 2.11 or
later and writes `docs/speed/gpu.json`. `--device cpu --quick` goes the same way in a minute.
"""

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from benchmarks.measure import about, medians
from benchmarks.models import CASES, Case
from benchmarks.steps import Step, floor, passes, plain, surgery, torchjd

ROOT = Path(__file__).parent.parent
MODELS = {  # the models of the other benchmarks, with batches that a GPU is not idle under
    "mlp, batch 512": CASES["mlp, batch 512"],
    "transformer, batch 256": replace(CASES["transformer, batch 16"], shape=(256, 32, 128)),
    "resnet-18, batch 256": replace(CASES["resnet-18, batch 32"], shape=(256, 3, 32, 32)),
    "two encoders, batch 256": replace(CASES["two encoders, batch 64"], shape=(256, 4, 32, 32)),
}
QUICK = {
    "transformer, batch 16": CASES["transformer, batch 16"],
    "two encoders, batch 64": CASES["two encoders, batch 64"],
}
OURS: dict[str, Step] = {
    "upgrad": surgery("upgrad"),
    "upgrad, gradients": surgery("upgrad", method="gradients"),
    "upgrad, batched": surgery("upgrad", method="batched"),
    "mgda": surgery("mgda"),
    "sum": surgery("sum"),
    "sum, ignore": surgery("sum", nonfinite="ignore"),
    "uw": surgery("uw"),
    "uw, ignore": surgery("uw", nonfinite="ignore"),
}
COUNTED: dict[str, Step] = {
    **OURS,
    "graddrop": surgery("graddrop"),
    "moco": surgery("moco"),
    "upgrad, low memory": surgery("upgrad", memory="low"),
    "sum().backward()": plain,
}


def under_autocast(
    forward: Callable[[], list[Tensor]], device: str, dtype: torch.dtype | None
) -> Callable[[], list[Tensor]]:
    """The forward pass under autocast to `dtype`; as it is for None."""
    if dtype is None:
        return forward

    def run() -> list[Tensor]:
        with torch.autocast(torch.device(device).type, dtype=dtype):
            return forward()

    return run


def syncs(model: nn.Module, forward: Callable[[], list[Tensor]], step: Step) -> int | None:
    """How often the host waits for the GPU in one step, after two of warm-up; None on the CPU.

    torch's sync debug mode counts blocking copies and reads; it does not see `synchronize()`.
    """
    for _ in range(2):
        losses = forward()
        step(model, losses)
    losses = forward()
    if not losses[0].is_cuda:
        return None
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(model, losses)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def peak(model: nn.Module, forward: Callable[[], list[Tensor]], step: Step) -> float | None:
    """MB that one step allocates beyond what was there before it; None on the CPU."""
    model.zero_grad()
    losses = forward()
    if not losses[0].is_cuda:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(model, losses)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def marked_tests(quick: bool) -> dict[str, Any]:
    """Run the tests marked `gpu` and count what became of them."""
    files = sorted(
        path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()
    )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        start = time.perf_counter()
        command += [f"--junitxml={report}", *(["--maxfail=1"] if quick else []), *map(str, files)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"pytest wrote no report:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    failed = [
        f"{case.get('classname')}::{case.get('name')}: {(trouble.get('message') or '')[:300]}"
        for case in suite.iter("testcase")
        for trouble in (*case.findall("failure"), *case.findall("error"))
    ]
    seconds = round(time.perf_counter() - start, 1)
    return {**count, "passed": passed, "failed": failed, "seconds": seconds}


def time_of_steps(
    models: dict[str, Case], wanted: list[int], device: str, rounds: int, console: Console
) -> list[dict[str, Any]]:
    """Milliseconds, peak memory and speed beside the others, per model, n and precision."""
    peer = find_spec("torchjd") is not None
    todo = [
        (name, n, dtype)
        for name, case in models.items()
        for n in (wanted if len(case.objectives) > 1 else case.objectives)
        for dtype in (None, torch.bfloat16)
    ]
    rows: list[dict[str, Any]] = []
    for name, n, dtype in track(todo, "time of a step", console=console):
        model, forward = models[name].build(n, device)
        forward = under_autocast(forward, device, dtype)
        steps: dict[str, Step] = {
            "sum().backward()": plain,
            "n passes": passes,
            "floor": floor,
            **OURS,
        }
        if peer:
            for chunk, how in ((None, "vmap"), (1, "one by one")):
                steps |= {f"torchjd, {how}": torchjd(chunk, False)}
                steps |= {f"torchjd, {how}, gramian": torchjd(chunk, True)}
        found = medians(model, forward, steps, rounds, seconds=12)
        best = min(
            (k for k in found if k.startswith("torchjd")), key=found.__getitem__, default=None
        )
        measured = {
            k: peak(model, forward, steps[k]) for k in ("sum().backward()", "upgrad", "n passes")
        }
        rows.append({
            "model": name, "n": n, "precision": "float32" if dtype is None else "bfloat16 autocast",
            "milliseconds": found, "torchjd": best, "megabytes": measured,
        })  # fmt: skip
    return rows


def shown(rows: list[dict[str, Any]], rounds: int) -> Table:
    """The ratios beside each other."""
    title = f"from the losses to .grad, ratios of medians of up to {rounds}"
    table = Table(title=title, title_justify="left")
    headings = (
        "n",
        "ms",
        "/ TorchJD",
        "/ floor",
        "/ n passes",
        "gradients",
        "batched",
        "sum",
        "sum, ignore",
        "uw, ignore",
        "MB",
    )
    table.add_column("model", no_wrap=True)
    table.add_column("precision", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        t, nan = row["milliseconds"], float("nan")
        cells = [t["upgrad"] / t.get(key, nan) for key in (row["torchjd"], "floor", "n passes")]
        cells += [t.get(f"upgrad, {how}", nan) / t["upgrad"] for how in ("gradients", "batched")]
        cells += [t[key] / t["sum().backward()"] for key in ("sum", "sum, ignore", "uw, ignore")]
        memory = row["megabytes"]["upgrad"]
        table.add_row(
            row["model"], row["precision"], str(row["n"]), f"{t['upgrad']:.2f}",
            *("-" if cell != cell else f"{cell:.2f}" for cell in cells),
            "-" if memory is None else f"{memory:.0f}",
        )  # fmt: skip
    return table


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the way.")] = "cuda",
    quick: Annotated[bool, typer.Option(help="Two small models, n = 2, three rounds.")] = False,
    tests: Annotated[bool, typer.Option(help="Run the tests marked gpu as well.")] = True,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = ROOT
    / "docs"
    / "speed"
    / "gpu.json",
) -> None:
    """Run the tests, print the ratios and the syncs, write the figures."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter(
            "this torch sees no CUDA device; --device cpu tries the way.", param_hint="--device"
        )
    if device == "cpu" and out == ROOT / "docs" / "speed" / "gpu.json":
        raise typer.BadParameter(
            "figures of a CPU do not go there; name another file.", param_hint="--out"
        )
    console, begin = Console(width=170), time.perf_counter()
    kept: dict[str, Any] = {**about(device), "device": device, "seed": 0}
    if device == "cpu":
        kept["threads"] = 1
        torch.set_num_threads(1)
    else:
        kept["cuda"] = torch.version.cuda

    def keep(**more: Any) -> None:
        kept.update(more, seconds=round(time.perf_counter() - begin, 1))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(kept, indent=1) + "\n")

    if tests:
        keep(tests=marked_tests(quick))
        console.print("tests marked gpu:", kept["tests"])
    models, wanted, rounds = (QUICK, [2], 3) if quick else (MODELS, [2, 4, 8], 25)
    first = next(iter(models.values()))
    n = (2 if quick else 4) if len(first.objectives) > 1 else first.objectives[0]
    model, forward = first.build(n, device)
    keep(syncs={name: syncs(model, forward, step) for name, step in COUNTED.items()})
    console.print("host syncs of one step:", kept["syncs"])
    keep(rounds=rounds, steps=time_of_steps(models, wanted, device, rounds, Console(stderr=True)))
    console.print(about(device))
    console.print(shown(kept["steps"], rounds))
    console.print(f"{kept['seconds']} s; figures in {out}")
    failed = kept["tests"]["failed"] if tests else []
    if failed:
        console.print("failed:", *failed, sep="\n")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

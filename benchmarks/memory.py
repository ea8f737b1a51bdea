"""Peak memory of a step beyond what the model and the forward pass hold.

`python -m benchmarks.memory` prints it beside TorchJD's and that of the plain sum. Each case runs
in a process of its own. The probe, the same for all, is the kernel's high-water mark of the
process, reset before the step (Linux).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from benchmarks.measure import about, need_torchjd
from benchmarks.models import CASES as MODELS
from benchmarks.models import Heads
from benchmarks.steps import Step, plain, surgery, torchjd
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

CASES = (
    "sum().backward()",
    "ours, gradients",
    "ours, auto",
    "ours, taps",
    "ours, memory=low",
    "ours, memory=low, gradients",
    "ours, sum",
)
PEERS = (
    "torchjd, one by one",
    "torchjd, one by one, gramian",
    "torchjd, vmap",
    "torchjd, vmap, gramian",
)


def step_of(case: str) -> Step:
    made: dict[str, Step] = {
        "sum().backward()": plain,
        "ours, gradients": surgery("upgrad", method="gradients"),
        "ours, auto": surgery("upgrad"),
        "ours, taps": surgery("upgrad", method="taps"),
        "ours, memory=low": surgery("upgrad", memory="low"),
        "ours, memory=low, gradients": surgery("upgrad", memory="low", method="gradients"),
        "ours, sum": surgery("sum"),
    }
    if case in made:
        return made[case]
    return torchjd(1 if "one by one" in case else None, "gramian" in case)


def build(width: int, layers: int, n: int) -> Heads:
    """An MLP with so many layers and heads."""
    torch.manual_seed(0)
    return Heads(
        nn.Sequential(
            *[layer for _ in range(layers) for layer in (nn.Linear(width, width), nn.ReLU())]
        ),
        width,
        n,
    )


def status(field: str) -> int:
    """A figure of the kernel's about this process, in bytes."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    )
    return int(line.split()[1]) * 1024


def probe(case: str, n: int, width: int, layers: int, batch: int, model: str) -> int:
    """Bytes that one step takes at most, beyond what was there before it."""
    step = step_of(case)
    small = build(8, layers, n)
    for _ in range(2):  # what a first step loads into the process is none of the step's
        step(small, small.losses(torch.randn(batch, 8), torch.randint(10, (n, batch))))
    if model:
        made, forward = MODELS[model].build(n)
        losses = forward()
    else:
        made = build(width, layers, n)
        losses = made.losses(torch.randn(batch, width), torch.randint(10, (n, batch)))
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = status("VmRSS")
    step(made, losses)
    return status("VmHWM") - before


def measured(
    case: str,
    n: int,
    width: int = 1024,
    layers: int = 16,
    batch: int = 64,
    model: str = "",
    repeats: int = 1,
) -> float:
    """The median of `probe` in processes of their own, in bytes.

    On an MLP, or on a model of the benchmarks by its name.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--case", case]
    command += ["--width", str(width), "--layers", str(layers), "--objectives", str(n)]
    command += ["--batch", str(batch), "--model", model]
    # freed memory goes back to the system at once, for all alike
    allocator = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = []
    for _ in range(repeats):
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, **allocator}
        )
        found.append(int(run.stdout.split()[-1]))
    return float(sorted(found)[repeats // 2])


def main(
    width: Annotated[int, typer.Option(min=1, help="Of each layer.")] = 1024,
    layers: Annotated[int, typer.Option(min=1)] = 16,
    objectives: Annotated[int, typer.Option(min=1)] = 4,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Processes per case; the median counts.")] = 3,
    peer: Annotated[bool, typer.Option(help="Run TorchJD as well.")] = True,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "comparisons/memory.json"
    ),
    case: Annotated[str, typer.Option(hidden=True)] = "",
    model: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the table."""
    if case:
        print(probe(case, objectives, width, layers, batch, model))
        return
    if peer:
        need_torchjd()
    cases = [*CASES, *(PEERS if peer else ())]
    figures: dict[str, float] = {}
    for name in track(cases, "cases", console=Console(stderr=True)):
        figures[name] = measured(name, objectives, width, layers, batch, repeats=repeats) / 1e6
    size = 4e-6 * sum(p.numel() for p in build(width, layers, objectives).parameters())
    table = Table(
        title=f"MLP, {size:.0f} MB of parameters, batch {batch}, n = {objectives}: "
        "peak memory of one step, MB",
        title_justify="left",
    )
    table.add_column("step")
    table.add_column("MB", justify="right")
    for name, peak in figures.items():
        table.add_row(name, f"{peak:.0f}")
    console = Console(width=110)
    console.print(about())
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps(
            {**about(), "parameters": size, "batch": batch, "n": objectives, "megabytes": figures},
            indent=1,
        )
    )


if __name__ == "__main__":
    typer.run(main)

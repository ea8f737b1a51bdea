"""Time and bytes of a step of several ranks beside plain DDP, as the ranks become more.

`python -m benchmarks.processes` trains an MLP, a fixed batch per rank, over gloo on the loopback.
Steps alternate in one launch of forked ranks. Bytes are what the loopback carried, over all ranks;
where `unshare` may make a network namespace the benchmark has one of its own, so that nothing else
is counted.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from benchmarks.measure import about, numbers
from benchmarks.models import Heads
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

APART = "GRADSURGERY_OWN_LOOPBACK"  # set where the process has a network namespace of its own
LIMIT = 120  # seconds after which a rank that waits gives up
PLAIN = "DDP, sum(losses).backward()"
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "mgda": ("mgda", {}),  # layers with few rows send their factors
    "mgda, gradients": ("mgda", {"method": "gradients"}),
    "mgda, gradients, every=4": ("mgda", {"method": "gradients", "every": 4}),
    "sum": ("sum", {}),
}
Figures = dict[str, dict[str, float]]  # step -> milliseconds, CPU milliseconds, bytes


def built(width: int, n: int) -> Heads:
    """Two layers of `width` and a head per objective; the same numbers on every rank."""
    torch.manual_seed(0)
    layers = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return Heads(nn.Sequential(*layers), width, n)


def carried() -> int:
    """The bytes that the loopback has carried so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[0])
    return 0


class Backward(nn.Module):
    """The losses' sum as what a model gives, since DDP expects one call per step."""

    def __init__(self, model: Heads) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return torch.stack(self.model.losses(x, labels)).sum()


def steps_of(model: Heads) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Each step from the batch to `.grad`, its forward pass included."""
    wrapped = DistributedDataParallel(Backward(model))
    steps: dict[str, Callable[[Tensor, Tensor], Any]] = {
        PLAIN: lambda x, labels: wrapped(x, labels).backward()
    }
    for name, (strategy, settings) in STEPS.items():
        surgery = gs.Surgery(strategy, model, process_group=dist.group.WORLD, **settings)
        steps[name] = lambda x, labels, s=surgery: s.backward(model.losses(x, labels))
    return steps


def rank(number: int, world: int, folder: str, width: int, n: int, batch: int, rounds: int) -> None:
    """One rank: every step in turn; rank 0 writes the figures."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    limit = timedelta(seconds=LIMIT)
    dist.init_process_group("gloo", store=store, rank=number, world_size=world, timeout=limit)
    model = built(width, n)
    steps = steps_of(model)
    torch.manual_seed(number)
    x, labels = torch.randn(batch, width), torch.randint(10, (n, batch))
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            for parameter in model.parameters():
                parameter.grad = None
            dist.barrier()
            before, begin, cpu = carried(), time.perf_counter(), time.process_time()
            step(x, labels)
            cpu = time.process_time() - cpu
            dist.barrier()
            found[name].append((time.perf_counter() - begin, cpu, carried() - before))
    if number == 0:
        table = {}
        for name, turns in found.items():
            kept = turns[2:]  # of `every=4` steps of all four kinds
            mean = statistics.mean if "every" in name else statistics.median
            seconds, cpu_seconds, sizes = (mean(each) for each in zip(*kept, strict=True))
            table[name] = {"ms": 1e3 * seconds, "cpu": 1e3 * cpu_seconds, "bytes": sizes}
        Path(folder, "found.json").write_text(json.dumps(table))
    dist.destroy_process_group()


def measured(world: int, width: int, n: int, batch: int, rounds: int) -> Figures:
    """The figures of one launch."""
    with tempfile.TemporaryDirectory() as folder:
        given = (world, folder, width, n, batch, rounds)
        mp.start_processes(rank, given, nprocs=world, start_method="fork")
        found: Figures = json.loads(Path(folder, "found.json").read_text())
    return found


def with_own_loopback() -> int | None:
    """Run this command again where no other program uses the loopback; None where that fails."""
    inside = 'ip link set lo up && exec "$@"'
    way = ["unshare", "--map-root-user", "--net", "sh", "-c", inside, "sh"]
    if os.environ.get(APART) or not (shutil.which("unshare") and shutil.which("ip")):
        return None
    if subprocess.run([*way, "true"], capture_output=True).returncode:
        return None
    command = [*way, sys.executable, *sys.orig_argv[1:]]
    return subprocess.run(command, env={**os.environ, APART: "1"}).returncode


def halves(found: Figures, step: str, world: int, size: int) -> float:
    """Bytes in halves of an all-reduce, 4·d·(W−1): plain DDP takes two."""
    return found[step]["bytes"] / (4 * size * (world - 1)) if world > 1 else 0.0


def main(
    worlds: Annotated[str, typer.Option(help="How many ranks, separated by commas.")] = "1,2,3,4",
    objectives: Annotated[str, typer.Option(help="How many, separated by commas.")] = "2,4,8",
    width: Annotated[int, typer.Option(min=1)] = 724,
    batch: Annotated[int, typer.Option(min=1, help="Rows per rank.")] = 32,
    rounds: Annotated[int, typer.Option(min=4)] = 16,
    out: Annotated[
        Path, typer.Option(help="Where the figures and the plot go, with .json and .png.")
    ] = Path("comparisons/processes"),
) -> None:
    """Print time and bytes per number of ranks."""
    ranks, counts = numbers("--worlds", worlds, 1), numbers("--objectives", objectives, 2)
    code = with_own_loopback()
    if code is not None:
        raise typer.Exit(code)
    cases = [(world, n) for n in counts for world in ranks]
    figures = [
        {
            "world": world,
            "n": n,
            "parameters": sum(p.numel() for p in built(width, n).parameters()),
            "steps": measured(world, width, n, batch, rounds),
        }
        for world, n in track(cases, "launches", console=Console(stderr=True))
    ]
    table = Table(title=f"MLP {width} wide, {batch} rows per rank", title_justify="left")
    for heading in ("ranks", "n", "step", "ms", "CPU ms", "MB", "halves"):
        table.add_column(heading, justify="right")
    for row in figures:
        found, world = row["steps"], row["world"]
        for name, step in found.items():
            half = halves(found, name, world, row["parameters"])
            cells = (f"{step['ms']:.1f}", f"{step['cpu']:.1f}", f"{step['bytes'] / 1e6:.2f}")
            table.add_row(str(world), str(row["n"]), name, *cells, f"{half:.2f}")
    console = Console(width=110)
    saved = {
        **about(),
        "threads": 1,  # per rank
        "own loopback": bool(os.environ.get(APART)),
        "width": width,
        "batch": batch,
        "rounds": rounds,
        "figures": figures,
    }
    console.print({key: value for key, value in saved.items() if key != "figures"})
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(saved, indent=1))
    plot(saved, out.with_suffix(".png"))


def predicted(step: str, n: int) -> float | None:
    """Halves of an all-reduce by the formula; None for factors, which go by rows."""
    replayed = (3 * 2 + n + 1) / 4
    found = {PLAIN: 2.0, "sum": 2.0, "mgda, gradients": n + 1.0}
    return {**found, "mgda, gradients, every=4": replayed}.get(step)


def plot(saved: dict[str, Any], path: Path) -> None:
    """Bytes per rank, with the formula beyond what was measured, and time, over the ranks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({row["n"] for row in saved["figures"]})
    figure, axes = pyplot.subplots(
        2, len(counts), figsize=(3.4 * len(counts), 6.4), layout="constrained", squeeze=False
    )
    for column, n in enumerate(counts):
        rows = sorted((r for r in saved["figures"] if r["n"] == n), key=lambda r: r["world"])
        worlds, size = [row["world"] for row in rows], rows[0]["parameters"]
        top, bottom = axes[0][column], axes[1][column]
        beyond = [2**k for k in range(7)]
        for step in rows[0]["steps"]:
            sent = [row["steps"][step]["bytes"] / row["world"] / 1e6 for row in rows]
            (line,) = top.plot(worlds, sent, "o", markersize=4, label=step)
            if (number := predicted(step, n)) is not None:
                formula = [number * 4 * size * (world - 1) / world / 1e6 for world in beyond]
                top.plot(beyond, formula, ":", color=line.get_color(), linewidth=1)
            times = [row["steps"][step]["ms"] for row in rows]
            bottom.plot(worlds, times, "o-", markersize=4, color=line.get_color())
        top.set(title=f"n = {n}", xscale="log", xlabel="ranks W", ylabel="MB per rank and step")
        top.set_xticks(beyond, [str(world) for world in beyond])
        top.minorticks_off()
        bottom.set(xlabel="ranks W, sharing the cores", ylabel="step with forward pass, ms")
        bottom.set_xticks(worlds)
        for panel in (top, bottom):
            panel.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    title = "points: measured; dotted: predicted by the formula"
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    typer.run(main)

"""Weights from a Gram matrix, and directions from rows: each strategy's time beside TorchJD's.

Both alternate in one process. `python benchmarks/weights.py` prints the table; `nox -s peers`
installs TorchJD first.
"""

import os

# problems this small only lose by more threads; both sides run under the same setting
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import platform
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import torchjd.aggregation as jd

import gradsurgery as gs
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.table import Table

GRAM = {
    "mgda": lambda n: jd.MGDAWeighting(),
    "pcgrad": lambda n: jd.PCGradWeighting(),
    "gradvac": lambda n: jd.GradVacWeighting(beta=0.01),
    "cagrad": lambda n: jd.CAGradWeighting(c=0.5),
    "imtl-g": lambda n: jd.IMTLGWeighting(),
    "fairgrad": lambda n: jd.FairGradWeighting(alpha=2.0),
    "aligned-mtl": lambda n: jd.AlignedMTLWeighting(),
    "upgrad": lambda n: jd.UPGradWeighting(),
    "dualproj": lambda n: jd.DualProjWeighting(),
    "krum": lambda n: jd.KrumWeighting(n_byzantine=1),
    "pcd": lambda n: jd.PCDWeighting(),
    "mean": lambda n: jd.MeanWeighting(),
    "sum": lambda n: jd.SumWeighting(),
    "random": lambda n: jd.RandomWeighting(),
    "constant": lambda n: jd.ConstantWeighting(torch.ones(n).double()),
}
ALONE = (
    "config", "mmpareto", "scaled-sum", "a-gem", "cr-mogm", "gradnorm", "famo", "uw", "dwa", "gls",
    "imtl-l", "stch", "cosmos", "pbi",
)  # fmt: skip


def medians(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median microseconds of each, taking turns."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 3):
        for seconds, call in zip(times, calls, strict=True):
            begin = time.perf_counter()
            call()
            if turn >= 3:
                seconds.append(time.perf_counter() - begin)
    return [1e6 * statistics.median(seconds) for seconds in times]


def ours(name: str, gram: np.ndarray) -> Callable[[], object]:
    strategy = gs.get_strategy(name, **({"objective": "0"} if name == "a-gem" else {}))
    extra = {"state": gs.State()} if "state" in strategy.inputs else {}
    losses = np.linspace(1, 2, len(gram))
    return lambda: strategy.weights(gram, losses=losses, **extra)


def main(
    rounds: Annotated[int, typer.Option(min=3)] = 60,
    dimension: Annotated[int, typer.Option(help="Coordinates of the Gaussian rows.")] = 100,
) -> None:
    """Print the medians and their ratios."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    table = Table(
        title=f"weights from G, Gaussian rows in {dimension} dimensions, median µs of {rounds}: "
        "ours / TorchJD = ratio",
        title_justify="left",
    )
    table.add_column("strategy")
    sizes = (2, 8, 32)
    for n in sizes:
        table.add_column(f"n = {n}", justify="right")
    for name in [*GRAM, "nash-mtl", *ALONE]:
        cells = []
        for n in sizes:
            rows = torch.as_tensor(np.random.default_rng(n).normal(size=(n, dimension)))
            gram = rows @ rows.T
            calls = [ours(name, gram.numpy())]
            if name == "krum" and n < 4:
                cells.append("-")
                continue
            if name in GRAM:
                peer = GRAM[name](n)
                calls.append(lambda peer=peer, gram=gram: peer(gram))
            elif name == "nash-mtl":
                peer = jd.NashMTL(n_tasks=n)
                calls.append(lambda peer=peer, rows=rows: peer.weighting(rows))
            found = medians(calls, rounds if name not in ("nash-mtl",) else max(5, rounds // 6))
            cells.append(
                f"{found[0]:,.0f}"
                if len(found) == 1
                else f"{found[0]:,.0f} / {found[1]:,.0f} = {found[0] / found[1]:.3f}"
            )
        table.add_row(name, *cells)
    console = Console(width=110)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    console.print(f"{machine}, {versions}")
    console.print(table)

    rows = torch.randn(8, 1_000_000, generator=torch.Generator().manual_seed(0))
    table = Table(title="from rows, n = 8, d = 1,000,000, float32, median ms", title_justify="left")
    for heading in ("strategy", "ours", "TorchJD", "ratio"):
        table.add_column(heading, justify="right")
    for name, peer in (
        ("config", jd.ConFIG()),
        ("graddrop", jd.GradDrop()),
        ("trimmed-mean", jd.TrimmedMean(1)),
    ):
        strategy = gs.get_strategy(name)
        found = [x / 1e3 for x in medians([lambda s=strategy: s(rows), lambda p=peer: p(rows)], 9)]
        table.add_row(name, f"{found[0]:.1f}", f"{found[1]:.1f}", f"{found[0] / found[1]:.3f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)

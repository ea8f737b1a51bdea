"""The time of a step beside TorchJD's, beside n backward passes and beside the floor, alternating in one process.

`python -m benchmarks.peers` prints ratios of medians and writes them as JSON. TorchJD 0.18 comes by `nox -s peers` or
`pip install 'torchjd[full]==0.18.0'`. Timed is the way from the losses to `.grad`; the forward pass before it is not.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the small problems only lose by more threads; both sides run under the same setting

import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import gradsurgery as gs
from benchmarks.models import CASES

Step = Callable[[nn.Module, list[Tensor]], object]


def plain(model: nn.Module, losses: list[Tensor]) -> None:
    torch.stack(losses).sum().backward()


def passes(model: nn.Module, losses: list[Tensor]) -> list[tuple[Tensor | None, ...]]:
    parameters = list(model.parameters())
    last = len(losses) - 1
    return [torch.autograd.grad(loss, parameters, retain_graph=i < last, allow_unused=True) for i, loss in enumerate(losses)]


def floor(model: nn.Module, losses: list[Tensor]) -> None:
    """n passes, one Gram matrix of the tensors that several losses reach, one combination."""
    rows = passes(model, losses)
    grams: dict[int, Tensor] = {}
    for p, column in zip(model.parameters(), zip(*rows, strict=True), strict=True):
        found = [g for g in column if g is not None]
        if len(found) > 1:
            flat = torch.stack([g.reshape(-1) for g in found])
            grams.setdefault(len(found), torch.zeros(len(found), len(found))).add_(flat @ flat.T)
        if found:
            total = found[0].mul_(0.5)
            for g in found[1:]:
                total.add_(g, alpha=0.5)
            p.grad = total


def surgery(strategy: str, **settings: Any) -> Step:
    """Ours, one Surgery a model."""
    kept: dict[int, gs.Surgery] = {}

    def step(model: nn.Module, losses: list[Tensor]) -> None:
        kept.setdefault(id(model), gs.Surgery(strategy, model, **settings)).backward(losses)

    return step


def torchjd(chunk: int | None, gramian: bool) -> Step:
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator = UPGrad()

    def step(model: nn.Module, losses: list[Tensor]) -> None:
        mtl_backward(losses, model.features, parallel_chunk_size=chunk)
        shared = [p for p in model.parameters() if getattr(p, "jac", None) is not None]
        jac_to_grad(shared, aggregator, optimize_gramian_computation=gramian)

    return step


def medians(model: nn.Module, forward: Callable[[], list[Tensor]], steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, taking turns in an order drawn anew each time (what one leaves to the allocator, the next finds).

    One that raises is left out.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for turn in range(rounds + 2):
        for name in order.sample(list(times), len(times)):
            step = steps[name]
            for p in model.parameters():
                p.grad = None
            losses = forward()
            begin = time.perf_counter()
            try:
                step(model, losses)
            except Exception as error:
                warnings.warn(f"{name}: {type(error).__name__}: {str(error)[:120]}", stacklevel=1)
                del times[name]
                continue
            if turn >= 2:
                times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def about() -> dict[str, object]:
    """The machine and the versions that figures belong to."""
    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"machine": cores, "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__}


def main(
    models: Annotated[str, typer.Option(help="Parts of the models' names, separated by commas.")] = "",
    objectives: Annotated[str, typer.Option(help="How many, separated by commas.")] = "2,4,8,16",
    rounds: Annotated[int, typer.Option(min=3)] = 9,
    threads: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    peer: Annotated[bool, typer.Option(help="Run TorchJD as well.")] = True,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("comparisons/peers.json"),
) -> None:
    """Print the ratios."""
    torch.set_num_threads(threads)
    wanted = [int(n) for n in objectives.split(",")]
    chosen = {name: case for name, case in CASES.items() if any(part.strip() in name for part in models.split(","))}
    figures = []
    todo = [(name, n) for name, case in chosen.items() for n in case.objectives if n in wanted or len(case.objectives) == 1]
    for name, n in track(todo, "cases", console=Console(stderr=True)):
        model, forward = chosen[name].build(n)
        steps = {"sum().backward()": plain, "n passes": passes, "floor": floor, "ours": surgery("upgrad"), "ours, sum": surgery("sum")}
        if peer:
            for chunk, how in ((None, "vmap"), (1, "one by one")):
                steps |= {f"torchjd, {how}": torchjd(chunk, False), f"torchjd, {how}, gramian": torchjd(chunk, True)}
        found = medians(model, forward, steps, rounds)
        best = min((found[key] for key in found if key.startswith("torchjd")), default=float("nan"))
        figures.append({"model": name, "n": n, "milliseconds": found, "torchjd": best})
    table = Table(title=f"upgrad, median ms of {rounds} and ratios of medians", title_justify="left")
    for heading in ("model", "n", "ours", "/ TorchJD's best", "/ floor", "/ n passes", "sum / sum().backward()"):
        table.add_column(heading, justify="right")
    for row in figures:
        t = row["milliseconds"]
        ratios = [t["ours"] / x for x in (row["torchjd"], t["floor"], t["n passes"])] + [t["ours, sum"] / t["sum().backward()"]]
        table.add_row(row["model"], str(row["n"]), f"{t['ours']:.1f}", *(f"{ratio:.2f}" for ratio in ratios))
    console = Console(width=110)
    console.print(about())
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about(), "rounds": rounds, "figures": figures}, indent=1))


if __name__ == "__main__":
    typer.run(main)

"""The time of a step beside TorchJD's, beside n backward passes and beside the floor, alternating in one process.

`python -m benchmarks.peers` prints ratios of medians and writes them as JSON. TorchJD 0.18 comes by `nox -s peers` or
`pip install 'torchjd[full]==0.18.0'`. Timed is the way from the losses to `.grad`; the forward pass before it is not.
"""

import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # the small problems only lose by more threads; both sides run under the same setting

import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

import gradsurgery as gs
from benchmarks.models import CASES
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

Step = Callable[[nn.Module, list[Tensor]], object]


def plain(model: nn.Module, losses: list[Tensor]) -> None:
    torch.stack(losses).sum().backward()


def passes(model: nn.Module, losses: list[Tensor]) -> list[tuple[Tensor | None, ...]]:
    parameters = list(model.parameters())
    last = len(losses) - 1
    return [
        torch.autograd.grad(loss, parameters, retain_graph=i < last, allow_unused=True)
        for i, loss in enumerate(losses)
    ]


def floor(model: nn.Module, losses: list[Tensor]) -> None:
    """n passes, one Gram matrix of the tensors that several losses reach, one combination."""
    rows = passes(model, losses)
    grams: dict[int, Tensor] = {}
    for p, column in zip(model.parameters(), zip(*rows, strict=True), strict=True):
        found = [g for g in column if g is not None]
        if len(found) > 1:
            flat = torch.stack([g.reshape(-1) for g in found])
            product = flat @ flat.T
            grams[len(found)] = grams[len(found)].add_(product) if len(found) in grams else product
        if found:
            total = found[0].mul_(0.5)
            for g in found[1:]:
                total.add_(g, alpha=0.5)
            p.grad = total


def surgery(strategy: str, **settings: Any) -> Step:
    """Ours, one Surgery a model."""
    kept: dict[int, gs.Surgery] = {}

    def step(model: nn.Module, losses: list[Tensor]) -> None:
        if id(model) not in kept:
            kept[id(model)] = gs.Surgery(strategy, model, **settings)
        kept[id(model)].backward(losses)

    return step


ONE_PASS = {
    "sum": surgery("sum"),
    "sum, ignore": surgery("sum", nonfinite="ignore"),
    "uw": surgery("uw"),
    "uw, ignore": surgery("uw", nonfinite="ignore"),
}


def torchjd(chunk: int | None, gramian: bool) -> Step:
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator = UPGrad()

    def step(model: nn.Module, losses: list[Tensor]) -> None:
        mtl_backward(losses, model.features, parallel_chunk_size=chunk)
        shared = [p for p in model.parameters() if getattr(p, "jac", None) is not None]
        jac_to_grad(shared, aggregator, optimize_gramian_computation=gramian)

    return step


def wait(losses: list[Tensor]) -> None:
    """Until the device has done what it was asked to."""
    if losses[0].is_cuda:
        torch.cuda.synchronize()


def medians(
    model: nn.Module,
    forward: Callable[[], list[Tensor]],
    steps: dict[str, Step],
    rounds: int,
    seconds: float = 30.0,
    rivals: str = "torchjd",
) -> dict[str, float]:
    """Median milliseconds of each, taking turns in an order drawn anew each time (what one leaves to the allocator, the next finds).

    One that raises is left out, and after the first turn a rival's setting that took twice as long as its best. After `seconds` three rounds are enough.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    start = time.perf_counter()
    for turn in range(rounds + 2):
        for name in order.sample(list(times), len(times)):
            step = steps[name]
            for p in model.parameters():
                p.grad = None
            losses = forward()
            wait(losses)
            begin = time.perf_counter()
            try:
                step(model, losses)
                wait(losses)
            except Exception as error:
                warnings.warn(f"{name}: {type(error).__name__}: {str(error)[:120]}", stacklevel=1)
                del times[name]
                continue
            times[name].append(time.perf_counter() - begin)
        if turn == 0:
            best = min(
                (found[0] for name, found in times.items() if name.startswith(rivals)), default=0.0
            )
            times = {
                name: found
                for name, found in times.items()
                if not name.startswith(rivals) or found[0] <= 2 * best
            }
        if turn >= 4 and time.perf_counter() - start > seconds:
            break
    return {name: 1e3 * statistics.median(found[2:]) for name, found in times.items()}


def about(device: str = "cpu") -> dict[str, object]:
    """The machine and the versions that figures belong to."""
    cores = (
        f"{platform.machine()}, {os.cpu_count()} cores"
        if device == "cpu"
        else torch.cuda.get_device_name(device)
    )
    return {
        "machine": cores,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def numbers(option: str, given: str, least: int, several: bool = False) -> list[int]:
    """Whole numbers from `least` on, separated by commas; `several`: at least two different ones.

    Raises:
        typer.BadParameter: for something else.
    """
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < least or (several and len(set(found)) < 2):
        raise typer.BadParameter(
            f"expected {'several ' if several else ''}whole numbers from {least} on, separated by commas; got {given!r}.",
            param_hint=option,
        )
    return found


def need_torchjd() -> None:
    """TorchJD is no dependency.

    Raises:
        typer.BadParameter: when it is not installed.
    """
    if find_spec("torchjd") is None:
        raise typer.BadParameter(
            "TorchJD is not installed: pip install 'torchjd[full]==0.18.0', or give --no-peer.",
            param_hint="--peer",
        )


def main(
    models: Annotated[
        str, typer.Option(help="Parts of the models' names, separated by semicolons.")
    ] = "",
    objectives: Annotated[str, typer.Option(help="How many, separated by commas.")] = "2,4,8,16",
    rounds: Annotated[int, typer.Option(min=3)] = 25,
    threads: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    peer: Annotated[bool, typer.Option(help="Run TorchJD as well.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory as well (Linux, CPU).")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "comparisons/peers.json"
    ),
) -> None:
    """Print the ratios."""
    from benchmarks.memory import measured

    torch.set_num_threads(threads)
    wanted = numbers("--objectives", objectives, 2)
    parts = [part.strip() for part in models.split(";")]
    for part in parts:
        if not any(part in name for name in CASES):
            raise typer.BadParameter(
                f"no model's name has {part!r} in it; the models are {'; '.join(CASES)}.",
                param_hint="--models",
            )
    if peer:
        need_torchjd()
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("this torch sees no CUDA device.", param_hint="--device")
    chosen = {name: case for name, case in CASES.items() if any(part in name for part in parts)}
    figures = []
    todo = [
        (name, n)
        for name, case in chosen.items()
        for n in case.objectives
        if n in wanted or len(case.objectives) == 1
    ]
    for name, n in track(todo, "cases", console=Console(stderr=True)):
        model, forward = chosen[name].build(n, device)
        steps = {
            "sum().backward()": plain,
            "n passes": passes,
            "floor": floor,
            "ours": surgery("upgrad"),
            **ONE_PASS,
        }
        if peer:
            for chunk, how in ((None, "vmap"), (1, "one by one")):
                steps |= {
                    f"torchjd, {how}": torchjd(chunk, False),
                    f"torchjd, {how}, gramian": torchjd(chunk, True),
                }
        found = medians(model, forward, steps, rounds)
        best = min(
            (key for key in found if key.startswith("torchjd")), key=found.__getitem__, default=None
        )
        row: dict[str, Any] = {"model": name, "n": n, "milliseconds": found, "torchjd": best}
        if memory and device == "cpu":
            cases = (
                "sum().backward()",
                "ours, auto",
                "ours, memory=low",
                *([best] if best else []),
            )
            row["megabytes"] = {case: measured(case, n, model=name) / 1e6 for case in cases}
        figures.append(row)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(
            json.dumps({**about(device), "rounds": rounds, "figures": figures}, indent=1)
        )
    console = Console(width=150)
    console.print(about(device))
    console.print(ratios(figures, rounds))


def ratios(figures: list[dict[str, Any]], rounds: int) -> Table:
    """The figures beside each other."""
    table = Table(
        title=f"upgrad from the losses to .grad: ratios of medians of {rounds}; peak memory of a step in MB",
        title_justify="left",
    )
    table.add_column("model", no_wrap=True)
    for heading in (
        "n",
        "ms",
        "/ TorchJD",
        "/ floor",
        "/ n passes",
        *(f"{name} / plain" for name in ONE_PASS),
        "MB",
        "low",
        "TorchJD",
        "plain",
    ):
        table.add_column(heading, justify="right")
    for row in figures:
        t, peak = row["milliseconds"], row.get("megabytes", {})
        best = row["torchjd"]
        cells = [t["ours"] / x for x in (t.get(best, float("nan")), t["floor"], t["n passes"])] + [
            t[name] / t["sum().backward()"] for name in ONE_PASS
        ]
        peaks = [
            peak.get(case, float("nan"))
            for case in ("ours, auto", "ours, memory=low", best, "sum().backward()")
        ]
        shown = [f"{cell:.2f}" for cell in cells] + [f"{x:.0f}" for x in peaks]
        table.add_row(
            row["model"],
            str(row["n"]),
            f"{t['ours']:.1f}",
            *("-" if x == "nan" else x for x in shown),
        )
    return table


if __name__ == "__main__":
    typer.run(main)

"""The time of a step beside TorchJD's, n backward passes and the floor, alternating in one process.

`python -m benchmarks.peers` prints ratios of medians and writes them as JSON. TorchJD 0.18 comes by
`nox -s peers` or `pip install 'torchjd[full]==0.18.0'`. Timed is the way from the losses to
`.grad`; the forward pass before it is not.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import torch

from benchmarks.measure import about, medians, need_torchjd, numbers
from benchmarks.memory import measured
from benchmarks.models import CASES
from benchmarks.steps import ONE_PASS, floor, passes, plain, surgery, torchjd
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table


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
        title=f"upgrad from the losses to .grad: ratios of medians of {rounds}; "
        "peak memory of a step in MB",
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

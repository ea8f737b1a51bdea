"""How the time and the peak memory of a step grow with the objectives and the parameters.

`python -m benchmarks.growth` fits exponents and plots them, for an MLP whose layers are 1,024 wide,
batch 64. Times alternate in one process; each peak is that of a process of its own.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from benchmarks.measure import about, medians, numbers
from benchmarks.memory import build, measured
from benchmarks.models import Heads
from benchmarks.steps import floor, passes, surgery
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

STEPS = {
    "auto": {},
    "gradients": {"method": "gradients"},
    "low": {"method": "gradients", "memory": "low"},
}
CASES = {"auto": "ours, auto", "gradients": "ours, gradients", "low": "ours, memory=low, gradients"}


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of log value over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def timed(model: Heads, n: int, batch: int, width: int, rounds: int) -> dict[str, float]:
    """Milliseconds of each step on an MLP."""
    x, labels = torch.randn(batch, width), torch.randint(10, (n, batch))
    steps = {name: surgery("upgrad", **settings) for name, settings in STEPS.items()}
    steps |= {"n passes": passes, "floor": floor}
    return medians(model, lambda: model.losses(x, labels), steps, rounds)


def main(
    objectives: Annotated[
        str, typer.Option(help="How many, separated by commas.")
    ] = "2,4,8,16,32,64",
    layers: Annotated[str, typer.Option(help="How many, separated by commas.")] = "1,2,4,8,16",
    width: Annotated[int, typer.Option(min=1)] = 1024,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    rounds: Annotated[int, typer.Option(min=3)] = 7,
    out: Annotated[
        Path, typer.Option(help="Where the figures and the plot go, with .json and .png.")
    ] = Path("comparisons/growth"),
) -> None:
    """Print the exponents."""
    counts, depths = (
        numbers("--objectives", objectives, 2, several=True),
        numbers("--layers", layers, 1, several=True),
    )
    sizes = [sum(p.numel() for p in build(width, depth, 4).parameters()) for depth in depths]
    figures: dict[str, dict[str, dict[str, list[float]]]] = {
        axis: {"milliseconds": {}, "megabytes": {}} for axis in ("n", "d")
    }
    cases = [("n", n, 4, n) for n in counts] + [("d", depth, depth, 4) for depth in depths]
    for axis, _, depth, n in track(cases, "cases", console=Console(stderr=True)):
        found = timed(build(width, depth, n), n, batch, width, rounds)
        for name, value in found.items():
            figures[axis]["milliseconds"].setdefault(name, []).append(value)
        for name, case in CASES.items():
            figures[axis]["megabytes"].setdefault(name, []).append(
                measured(case, n, width, depth, batch) / 1e6
            )
    table = Table(
        title=f"MLP {width} wide, batch {batch}, upgrad: value ~ size^exponent",
        title_justify="left",
    )
    for heading in ("of", "over", "step", "from", "to", "exponent"):
        table.add_column(heading, justify="right")
    fits: dict[str, float] = {}
    for axis, quantities in figures.items():
        over = counts if axis == "n" else sizes
        for quantity, by_step in quantities.items():
            for name, values in by_step.items():
                fits[f"{quantity}, {axis}, {name}"] = exponent(over, values)
                table.add_row(
                    quantity,
                    axis,
                    name,
                    f"{values[0]:.1f}",
                    f"{values[-1]:.1f}",
                    f"{fits[f'{quantity}, {axis}, {name}']:.2f}",
                )
    console = Console(width=110)
    console.print(about())
    console.print(f"n = {counts} at 4 layers; d = {sizes} at n = 4")
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        **about(),
        "width": width,
        "batch": batch,
        "rounds": rounds,
        "n": counts,
        "d": sizes,
        "figures": figures,
        "exponents": fits,
    }
    out.with_suffix(".json").write_text(json.dumps(saved, indent=1))
    plot(saved, out.with_suffix(".png"))


def plot(saved: dict[str, object], path: Path) -> None:
    """Four panels, doubly logarithmic: time and memory over n and over d."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures, fits = saved["figures"], saved["exponents"]
    assert isinstance(figures, dict)
    assert isinstance(fits, dict)
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for column, (axis, label) in enumerate((("n", "objectives n"), ("d", "parameters d"))):
        for row, (quantity, unit) in enumerate(
            (("milliseconds", "step, ms"), ("megabytes", "peak memory of a step, MB"))
        ):
            panel = axes[row][column]
            over = saved[axis]
            for name, values in figures[axis][quantity].items():
                panel.plot(
                    over,
                    values,
                    "o-",
                    markersize=4,
                    label=f"{name}: {fits[f'{quantity}, {axis}, {name}']:.2f}",
                )
            panel.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            if axis == "n":
                panel.set_xticks(over, [str(n) for n in over])
                panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.legend(title="fitted exponent", fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    typer.run(main)

"""The two-parameter toy of CAGrad and Nash-MTL: which strategies reach the Pareto front.

`python examples/toy.py` runs both versions in full, from every start (about 25 minutes on two
cores), and writes outcomes.json and toy.png.
"""

import json
import multiprocessing
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradsurgery as gs
from gradsurgery.tasks.toy import CAGRAD, NASH, Toy

# its authors' bounds for this toy, and no decay of the logits
FAMO = "famo(weight_decay=0, minimum={'first': -2.1, 'second': -21.0})"
GRADIENTS = ["pcgrad", "cagrad(c=0.4)", "config", "mgda", "imtl-g", "nash-mtl", "aligned-mtl"]
PLANS = {"nash": (NASH, ["sum", *GRADIENTS, FAMO]), "cagrad": (CAGRAD, ["sum", "cagrad(c=0.5)"])}
REACHED = 0.1  # distance from the Pareto set that counts as on it
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def descend(toy: Toy, strategy: str, start: int, steps: int) -> list[list[float]]:
    """The trajectory from one start, 200 points of it and the last."""
    torch.set_num_threads(1)
    x = torch.nn.Parameter(torch.tensor(toy.starts[start], dtype=torch.float64))
    optimizer = torch.optim.Adam([x], lr=1e-3)
    surgery = gs.Surgery(strategy, [x], seed=start)
    path = []
    for step in range(steps):
        if step % max(1, steps // 200) == 0:
            path.append(x.tolist())
        first, second = toy.losses(x).unbind()
        optimizer.zero_grad()
        surgery.backward({"first": first, "second": second})
        optimizer.step()
    return [*path, x.tolist()]


def end(toy: Toy, path: list[list[float]]) -> dict[str, object]:
    """Where a trajectory ends, and how far from the Pareto set."""
    return {"x": path[-1], "distance": float(toy.distance(torch.tensor(path[-1])))}


def draw(paths: dict[str, dict[str, list[list[list[float]]]]], file: Path) -> None:
    """Save a figure with a panel per version and strategy.

    Each has the contours of L₁ + L₂, the Pareto set, and the trajectories.
    """
    from matplotlib.figure import Figure

    panels = [(version, strategy) for version in paths for strategy in paths[version]]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-10, 10, 200), torch.linspace(-10, 10, 200), indexing="xy"),
        -1,
    ).double()
    for axis, (version, strategy) in zip(axes, panels, strict=False):
        toy = PLANS[version][0]
        axis.contour(
            grid[..., 0],
            grid[..., 1],
            toy.losses(grid).sum(-1),
            levels=22,
            linewidths=0.4,
            cmap="Greys_r",
        )
        front, _ = toy.front()
        axis.plot(front[:, 0], front[:, 1], color="0.6", linewidth=5, solid_capstyle="butt")
        for path in paths[version][strategy]:
            x, y = zip(*path, strict=True)
            reached = float(toy.distance(torch.tensor(path[-1]))) < REACHED
            axis.plot(x, y, color="C0" if reached else "C3", linewidth=1.3)
            axis.plot(x[0], y[0], "o", color="black", markersize=3)
            axis.plot(
                x[-1],
                y[-1],
                "*" if reached else "X",
                color="C0" if reached else "C3",
                markersize=9,
                zorder=5,
            )
        axis.set_title(
            f"{strategy}" + (" (CAGrad's version)" if version == "cagrad" else ""), fontsize=9
        )
        axis.set_xlim(-10.5, 10.5)
        axis.set_ylim(-10.5, 10.5)
        axis.tick_params(labelsize=7)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle("start: dot; end: star on the Pareto set (grey), red cross off it", fontsize=9)
    figure.savefig(file, dpi=130)


@app.command()
def main(
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each run. Default: the papers' 50,000 and 100,000."),
    ] = None,
    version: Annotated[str, typer.Option(help="nash, cagrad, or both.")] = "both",
    strategies: Annotated[
        str,
        typer.Option(
            help="Strategies, separated by semicolons. Default: those whose outcomes are known."
        ),
    ] = "",
    processes: Annotated[int, typer.Option(min=1, help="How many runs at once.")] = os.cpu_count()
    or 1,
    out: Annotated[Path, typer.Option(help="Folder for outcomes.json and toy.png.")] = Path("toy"),
) -> None:
    """Run the toy and say which strategies reach the Pareto front from where."""
    chosen = list(PLANS) if version == "both" else [version]
    jobs = [
        (v, s, start)
        for v in chosen
        for s in (
            [gs.get_strategy(s) and s for s in strategies.split(";")] if strategies else PLANS[v][1]
        )
        for start in range(len(PLANS[v][0].starts))
    ]
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, dict[str, list[list[list[float]]]]] = {}
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [
            (v, s, pool.submit(descend, PLANS[v][0], s, start, steps or PLANS[v][0].steps))
            for v, s, start in jobs
        ]
        for v, s, future in track(waiting, "runs", console=Console(stderr=True)):
            paths.setdefault(v, {}).setdefault(s, []).append(future.result())
    outcomes = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "gradsurgery": gs.__version__,
        },
        "steps": {v: steps or PLANS[v][0].steps for v in chosen},
        "starts": {v: PLANS[v][0].starts for v in chosen},
        "ends": {
            v: {s: [end(PLANS[v][0], path) for path in found] for s, found in paths[v].items()}
            for v in paths
        },
    }
    (out / "outcomes.json").write_text(json.dumps(outcomes, indent=1))
    draw(paths, out / "toy.png")
    console = Console(width=max(118, Console().width))
    for v in chosen:
        table = Table(
            title=f"{v}: where runs end, and whether that is the Pareto set (distance < {REACHED})",
            title_justify="left",
        )
        table.add_column("strategy")
        for start in PLANS[v][0].starts:
            table.add_column(f"from ({start[0]:g}, {start[1]:g})", justify="right")
        for s, ends in outcomes["ends"][v].items():
            places = [f"({e['x'][0]:.2f}, {e['x'][1]:.2f})" for e in ends]
            marks = ["yes" if e["distance"] < REACHED else "NO" for e in ends]
            table.add_row(s, *map(" ".join, zip(places, marks, strict=True)))
        console.print(table)
    console.print(f"outcomes: {out / 'outcomes.json'}\npicture:  {out / 'toy.png'}")


if __name__ == "__main__":
    app()

"""Plots of the study's page: response curves, flatness, conflict beside its control."""

import statistics
from pathlib import Path
from typing import Any

from gradsurgery.study import Evidence, Part

SHOWN = 10  # lines in a panel: more cannot be told apart


def draw(evidence: Evidence, folder: Path) -> dict[str, str]:
    """Save what there are rows for; file name -> what it shows."""
    made = {}
    for name, what, panels in (
        (
            "curves.png",
            "Response curves: the primary validation figure against the learning rate, a line per "
            "strategy, mean over the tuning seeds; a dot is the rate that was chosen.",
            {part.name: (_curve, part) for part in evidence.parts if evidence.choices(part)},
        ),
        (
            "flatness.png",
            "The largest Hessian eigenvalue of the summed training loss at equal loss, a dot per "
            "seed.",
            _panels(evidence, "flatness", _flat),
        ),
        (
            "conflict.png",
            "The share of batches on which two losses conflict, beside that of two batches of one "
            "loss, over the steps of trajectories of sum; mean over seeds and pairs.",
            _panels(evidence, "diagnosis", _conflict),
        ),
    ):
        if panels:
            _save(evidence, panels, folder / name)
            made[name] = what
    return made


def _panels(evidence: Evidence, kind: str, drawn: Any) -> dict[str, Any]:
    names = {line["part"] for line in evidence.other(kind)}
    return {p.name: (drawn, p) for p in evidence.declaration.parts if p.name in names}


def _save(evidence: Evidence, panels: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.5 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, (drawn, part)) in zip(axes, panels.items(), strict=False):
        drawn(evidence, part, axis)
        axis.set_title(name)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def _curve(evidence: Evidence, part: Part, axis: Any) -> None:
    choices = evidence.choices(part)
    shown = [label for label in part.strategies if label in choices][:SHOWN]
    for i, label in enumerate(shown):
        choice = choices[label]
        curve = [(float(rate), x) for rate, x in choice["figures"].items() if x is not None]
        if not curve:
            continue
        style = {"color": f"C{i}", "lw": 2.5 if label == "sum" else 1.2}
        axis.plot(*zip(*curve, strict=True), label=label, **style)
        best = dict(curve).get(choice["lr"])
        axis.plot([choice["lr"]], [best], "o", color=f"C{i}", markersize=5)
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("learning rate")
    axis.set_ylabel(f"validation, {part.primary}")
    axis.legend(fontsize=6, frameon=False)


def _flat(evidence: Evidence, part: Part, axis: Any) -> None:
    found: dict[str, list[float]] = {}
    for line in evidence.other("flatness"):
        if line["part"] == part.name:
            found.setdefault(line["strategy"], []).append(line["eigenvalue"])
    for place, values in enumerate(found.values()):
        axis.plot([place] * len(values), values, "o", markersize=4, alpha=0.7)
    axis.set_xticks(range(len(found)), list(found), rotation=20, fontsize=7)
    axis.set_yscale("log")
    axis.set_ylabel("largest eigenvalue")


def _conflict(evidence: Evidence, part: Part, axis: Any) -> None:
    by_step: dict[int, list[Any]] = {}
    for line in evidence.other("diagnosis"):
        if line["part"] == part.name:
            for at in line["steps"]:
                by_step.setdefault(at["step"], []).extend(at["pairs"])
    steps = sorted(by_step)
    rates = [statistics.fmean(p["conflict"] for p in by_step[s]) for s in steps]
    controls = [statistics.fmean(c for p in by_step[s] for c in p["control"]) for s in steps]
    axis.plot(steps, rates, "o-", label="two losses, one batch")
    axis.plot(steps, controls, "s--", color="0.5", label="one loss, two batches")
    axis.set_ylim(0, 1)
    axis.set_xlabel("step")
    axis.set_ylabel("share in conflict")
    axis.legend(fontsize=7, frameon=False)

"""Pictures of a Recorder: each function draws one panel, `plot` all of them in a figure."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsurgery.diagnostics.recorder import Recorder
from gradsurgery.diagnostics.windows import by_step, cosines_by_step, windowed
from gradsurgery.errors import InputError, extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOWS = 24  # along the axis of steps
RATES = 12  # windows of a rate, which needs more samples in each than a median does


def cosine_band(recorder: Recorder, group: str, axes: "Axes") -> None:
    """The cosine of each pair over time: median line and the band from the 10 to the 90 % quantile.

    Args:
        recorder: with samples of the group.
        group: its name.
        axes: of matplotlib, to draw on.
    """
    for k, (pair, (steps, values)) in enumerate(cosines_by_step(recorder[group]).items()):
        at, parts = windowed(steps, values, WINDOWS)
        low, middle, high = (np.array([np.quantile(p, q) for p in parts]) for q in (0.1, 0.5, 0.9))
        axes.fill_between(at, low, high, color=f"C{k % 10}", alpha=0.2, linewidth=0)
        axes.plot(at, middle, color=f"C{k % 10}", label=pair)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=group, ylabel="cosine, median and 10 to 90 %", ylim=(-1.05, 1.05))
    _finish(axes)


def conflict_rate(recorder: Recorder, group: str, axes: "Axes") -> None:
    """The share of batches that conflict, per pair, beside the control of each objective.

    The control is dotted: the share of steps at which two batches of one objective conflict. It is
    there where the loop gave a second batch (`control=`).
    """
    for k, (pair, (steps, values)) in enumerate(cosines_by_step(recorder[group]).items()):
        at, parts = windowed(steps, values, RATES)
        axes.plot(at, [100 * float((p < 0).mean()) for p in parts], color=f"C{k % 10}", label=pair)
    controls = by_step(recorder[group], "control")
    for k, (name, (steps, values)) in enumerate(controls.items()):
        at, parts = windowed(steps, values, RATES)
        rate = [100 * float((p < 0).mean()) for p in parts]
        axes.plot(at, rate, ":", color=f"C{(k + 5) % 10}", label=f"two batches of {name}")
    axes.set(title=group, ylabel="batches that conflict, %", ylim=(-3, 103))
    _finish(axes)


def norm_ratios(
    recorder: Recorder,
    group: str,
    axes: "Axes",
    *,
    joint: str | None = None,
    modalities: int | None = None,
) -> None:
    """The ratios of norms on a log axis, beside √M, which initialisation alone gives.

    Args:
        recorder: with samples of the group.
        group: its name.
        axes: of matplotlib, to draw on.
        joint: the objective that ratios are over; by default the first one of the group.
        modalities: M, for the line at √M.
    """
    norms = by_step(recorder[group], "norms")
    below = next(iter(norms), None) if joint is None else joint
    if below is not None and below in norms:
        under = dict(zip(*(x.tolist() for x in norms[below]), strict=True))
        for k, (name, (steps, values)) in enumerate(norms.items()):
            shared = [
                (step, value / under[step])
                for step, value in zip(steps.tolist(), values.tolist(), strict=True)
                if name != below and under.get(step, 0) > 0 and value > 0
            ]
            if shared:
                axes.plot(*zip(*shared, strict=True), color=f"C{k % 10}", label=f"{name}/{below}")
    axes.axhline(1, color="black", linewidth=0.8)
    if modalities is not None:
        root = math.sqrt(modalities)
        axes.axhline(root, color="black", linestyle="--", linewidth=0.8, label=f"√M = {root:.2f}")
    _logarithmic(axes)
    axes.set(title=group, ylabel="ratio of norms")
    _finish(axes)


def weights(recorder: Recorder, group: str, axes: "Axes") -> None:
    """The weights of the objectives over time."""
    for k, (name, (steps, values)) in enumerate(by_step(recorder[group], "weights").items()):
        axes.plot(steps, values, color=f"C{k % 10}", label=name)
    axes.set(title=group, ylabel="weight")
    _finish(axes)


def lengths(recorder: Recorder, group: str, axes: "Axes") -> None:
    """The length of the direction d over that of the plain sum Σg: what a step size hides."""
    kept = [s for s in recorder[group] if np.isfinite(s.length) and s.sum_length > 0]
    if kept:
        axes.plot([s.step for s in kept], [s.length / s.sum_length for s in kept], label="‖d‖/‖Σg‖")
        _logarithmic(axes)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(title=group, ylabel="length over the sum's")
    _finish(axes)


def heat_map(recorder: Recorder, axes: "Axes") -> None:
    """Groups by time: the mean cosine of all pairs of a group, from −1 (red) to 1 (blue)."""
    names = list(recorder.groups)
    last = max((kept[-1].step for kept in recorder.groups.values() if kept), default=0)
    edges = np.linspace(0, last + 1, WINDOWS + 1)
    image = np.full((len(names), WINDOWS), np.nan)
    for row, name in enumerate(names):
        pairs = cosines_by_step(recorder[name]).values()
        steps = np.concatenate([s for s, _ in pairs]) if pairs else np.zeros(0)
        values = np.concatenate([v for _, v in pairs]) if pairs else np.zeros(0)
        column = np.clip(np.searchsorted(edges, steps, "right") - 1, 0, WINDOWS - 1)
        for at in np.unique(column):
            image[row, at] = values[column == at].mean()
    extent = (0.0, float(last + 1), len(names) - 0.5, -0.5)
    style: Any = {"cmap": "RdBu", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    drawn = axes.imshow(image, aspect="auto", extent=extent, **style)
    axes.set_yticks(range(len(names)), names)
    axes.set(title="mean cosine", xlabel="step")
    axes.figure.colorbar(drawn, ax=axes)


def plot(
    recorder: Recorder,
    path: str | Path | None = None,
    *,
    joint: str | None = None,
    modalities: int | None = None,
) -> "Figure":
    """A figure with a row per group: cosines, conflict rate, norm ratios, weights and lengths.

    Below them is the heat map by group.

    Args:
        recorder: with samples.
        path: where to save it, if anywhere.
        joint: as for `norm_ratios`; it counts in the groups that have it.
        modalities: M, as for `norm_ratios`.

    Raises:
        InputError: for a Recorder without samples.
        MissingExtraError: without matplotlib.
    """
    if not recorder.groups:
        raise InputError("plot: the Recorder has no samples of a group with several objectives.")
    with extra("diagnostics", "the plot"):
        from matplotlib.figure import Figure

    count = len(recorder.groups)
    figure = Figure(figsize=(22, 3.4 * count + 1.5 + 0.4 * count), layout="constrained")
    grid: Any = figure.add_gridspec(count + 1, 5)
    for row, group in enumerate(recorder.groups):
        panels = [figure.add_subplot(grid[row, column]) for column in range(5)]
        known = joint if joint in recorder[group][0].objectives else None
        cosine_band(recorder, group, panels[0])
        conflict_rate(recorder, group, panels[1])
        norm_ratios(recorder, group, panels[2], joint=known, modalities=modalities)
        weights(recorder, group, panels[3])
        lengths(recorder, group, panels[4])
    heat_map(recorder, figure.add_subplot(grid[count, :]))
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure


def _logarithmic(axes: "Axes") -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")  # less than a decade has few major ticks, or none


def _finish(axes: "Axes") -> None:
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)

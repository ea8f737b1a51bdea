"""The response curves as one picture: a panel per task, a line per strategy."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsurgery.compare.curves import Curve
from gradsurgery.compare.names import short_names
from gradsurgery.compare.pictures import save_into
from gradsurgery.errors import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "curves.png"
SHARE = 0.75  # of the curves' points are shown at least; a diverged one may be far off
WIDE = 50.0  # a positive figure that varies by more has a logarithmic axis


def plot_curves(found: Mapping[str, Sequence[Curve]], folder: Path) -> Path:
    """Save `curves(lines)` in a folder as curves.png, over an earlier picture of ours.

    A line is the mean validation figure over the seeds, against the rate. The chosen rate has a
    filled mark; an open one with "edge" in the legend says that no rate beyond it was tried.
    Baselines have dashed lines. Runs on a part of the losses are there where their figure is the
    others'.

    Raises:
        InputError: where it cannot be written.
        MissingExtraError: when matplotlib is not installed.
    """
    return save_into(draw_curves(found), folder, FILE)


def draw_curves(found: Mapping[str, Sequence[Curve]]) -> "Figure":
    """The same as a matplotlib figure."""
    with extra("compare", "the plot"):
        from matplotlib.figure import Figure
    most = max(map(len, found.values()), default=1)
    height = max(3.6, 1.4 + 0.22 * most)
    figure = Figure(figsize=(8.4, height * max(len(found), 1)), layout="constrained")
    panels = figure.subplots(max(len(found), 1), 1, squeeze=False)[:, 0]
    for panel, (task, of_task) in zip(panels, found.items(), strict=False):
        _panel(panel, task, of_task)
    return figure


def _panel(panel: "Axes", task: str, of_task: Sequence[Curve]) -> None:
    first = next((x for x in of_task if x.kind != "alone" and x.what), None)
    what = None if first is None else first.what
    shown = [curve for curve in of_task if curve.what == what]
    names = short_names(curve.strategy for curve in of_task)
    for k, curve in enumerate(shown):
        means = [math.nan if mean is None else mean for mean in curve.means]
        dashed = curve.kind in ("control", "alone")
        style: dict[str, Any] = {"color": f"C{k % 10}", "linestyle": "--" if dashed else "-"}
        edge = f" ({curve.edge} edge)" if curve.edge else ""
        style |= {"marker": ".", "markersize": 4, "linewidth": 1.3}
        panel.plot(curve.rates, means, label=f"{names.of(curve.strategy)}{edge}", **style)
        if curve.chosen in curve.rates:
            at = means[curve.rates.index(curve.chosen)]
            filled = "white" if curve.edge else style["color"]
            panel.plot(
                [curve.chosen], [at], "o", markersize=8, color=style["color"], mfc=filled, zorder=4
            )
    panel.set_xscale("log")
    ticks = _ticks([rate for curve in shown for rate in curve.rates])
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
    _limit(panel, [m for c in shown for m in c.means if m is not None], first)
    panel.set_title(task)
    panel.set_xlabel("learning rate (filled: the chosen one; open: at an edge of what was tried)")
    panel.set_ylabel(what or "every run failed", wrap=True)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if shown:
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")


def _ticks(rates: Sequence[float]) -> list[float]:
    """1, 2 and 5 of each power of ten within the rates: matplotlib's own overlap here."""
    if not rates:
        return []
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    found = [float(f"{m}e{power}") for power in range(low, high + 1) for m in (1, 2, 5)]
    return [tick for tick in found if min(rates) / 1.3 <= tick <= 1.3 * max(rates)]


def _limit(panel: "Axes", values: Sequence[float], first: Curve | None) -> None:
    """Leave out what diverged: the best three quarters of the points decide what is shown."""
    if len(values) < 2 or first is None:
        return
    higher = first.better == "higher"
    best = sorted(values, reverse=higher)
    kept = best[: max(2, math.ceil(SHARE * len(best)))]
    if not higher and kept[0] > 0 and kept[-1] > WIDE * kept[0]:
        panel.set_yscale("log")
        panel.set_ylim(kept[0] / 1.5, 1.5 * kept[-1])
        return
    low, high = min(kept), max(kept)
    margin = 0.08 * (high - low)
    if margin > 0:
        panel.set_ylim(low - margin, high + margin)

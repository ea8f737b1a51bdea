"""The comparison as one picture: per task, each strategy's test accuracies over the seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradsurgery.compare.names import short_names
from gradsurgery.compare.pictures import save_into
from gradsurgery.compare.summary import Row
from gradsurgery.errors import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "comparison.png"


def plot(summary: Mapping[str, Sequence[Row]], path: Path) -> Path:
    """Save a figure with a panel per task, or several where its figures have several units.

    Per strategy and objective it has a mark at the mean, a bar of ± one std, and a dot per seed.

    Raises:
        MissingExtraError: when matplotlib is not installed.
    """
    _draw(summary).savefig(path, dpi=150)
    return path


def plot_into(summary: Mapping[str, Sequence[Row]], folder: Path) -> Path:
    """Save that figure in a folder as comparison.png, over an earlier one of ours.

    A picture of that name that is the user's stays: ours is comparison-2.png then.

    Raises:
        InputError: where it cannot be written; what was begun of it is removed.
        MissingExtraError: when matplotlib is not installed.
    """
    return save_into(_draw(summary), folder, FILE)


def _draw(summary: Mapping[str, Sequence[Row]]) -> "Figure":
    with extra("compare", "the plot"):
        from matplotlib.figure import Figure
    shown = [(task, *panel) for task, rows in summary.items() for panel in _panels(rows)]
    tallest = max((len(rows) for rows in summary.values()), default=1)
    figure = Figure(figsize=(5.4 * max(len(shown), 1), 1.9 + 0.42 * tallest), layout="constrained")
    panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
    for panel, (task, label, objectives) in zip(panels, shown, strict=False):
        rows = summary[task]
        names = short_names(row.strategy for row in rows)
        for k, objective in enumerate(objectives):
            shift = 0.22 * (k - (len(objectives) - 1) / 2)
            there = [
                (len(rows) - 1 - i - shift, row)
                for i, row in enumerate(rows)
                if objective in row.accuracies
            ]
            colour = f"C{k}"
            heights = [y for y, _ in there]
            means = [row.mean(objective) for _, row in there]
            bars = [row.std(objective) or 0.0 for _, row in there]
            style = {"fmt": "osD^v"[k % 5], "color": colour, "markersize": 6, "capsize": 3}
            panel.errorbar(means, heights, xerr=bars, label=objective, **style)
            dots = [
                (value, y)
                for y, row in there
                for value in row.accuracies[objective]
                if len(row.seeds) > 1
            ]
            if dots:
                panel.scatter(
                    *zip(*dots, strict=True),
                    facecolors="white",
                    edgecolors=colour,
                    s=16,
                    linewidths=1.0,
                    zorder=4,
                )
        panel.set_yticks(range(len(rows)), [names.of(x.strategy) for x in reversed(rows)])
        panel.set_ylim(-0.6, len(rows) - 0.4)
        panel.set_title(task)
        panel.set_xlabel(f"test {label}")
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        if objectives:
            panel.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.16),
                ncols=len(objectives),
                frameon=False,
            )
        else:
            panel.text(
                0.5, 0.5, "every run failed", ha="center", va="center", transform=panel.transAxes
            )
    return figure


def _panels(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """The objectives that share an axis, with its label: those whose figures are of one kind."""
    objectives = list(dict.fromkeys(o for row in rows for o in row.accuracies))
    labels = {o: label for row in rows for o, label in (row.labels or {}).items()}
    better = {o: word for row in rows for o, word in (row.better or {}).items()}
    figure = next((row.figure for row in rows if row.seeds), "figure")
    found: dict[str, list[str]] = {}
    for objective in objectives:
        low = " (lower is better)" if better.get(objective) == "lower" else ""
        found.setdefault(labels.get(objective, figure) + low, []).append(objective)
    return list(found.items()) or [(figure, [])]

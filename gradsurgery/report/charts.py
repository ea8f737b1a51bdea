"""The charts of a task: response curves of the learning rate, and fixed weights as a front."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradsurgery.compare.choice import Line, metric_of
from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.curves import curves
from gradsurgery.compare.primary import Primary
from gradsurgery.report.drawing import Series, chart, styles
from gradsurgery.report.strategies import is_baseline

FIXED = "constant("  # what the label of fixed weights begins with


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, its legend and what it shows.

    Attributes:
        title: its heading.
        svg: the drawing.
        legend: (name, class) per series.
        caption: what it shows, in words.
    """

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...]
    caption: str


def charts(lines: Iterable[Line], conclusion: Conclusion) -> tuple[Chart, ...]:
    """Those that the rows of a task allow."""
    lines = [line for line in lines if line.get("task") == conclusion.task]
    made = (response(lines, conclusion), front(conclusion))
    return tuple(one for one in made if one is not None)


def response(lines: Sequence[Line], conclusion: Conclusion) -> Chart | None:
    """The validation figure against the learning rate, a line per strategy.

    None where every strategy has one rate, or the task says no direction.
    """
    primary = conclusion.primary
    if primary is None:
        return None
    found = [one for one in curves(lines).get(conclusion.task, []) if one.names]
    # a loss alone is chosen by its own figure, which is another axis
    names = next((one.names for one in found if one.kind != "alone"), ())
    found = [one for one in found if one.names == names]
    lines_of = {
        one.strategy: tuple(
            (rate, mean)
            for rate, mean in zip(one.rates, one.means, strict=True)
            if mean is not None and math.isfinite(mean)
        )
        for one in found
    }
    if not any(len(points) > 1 for points in lines_of.values()):
        return None
    chosen = {one.strategy: one.lr for one in conclusion.trained}
    style = styles(list(lines_of), _grey(conclusion))
    names_of = conclusion.names.of
    series = [
        Series(names_of(label), points, chosen.get(label), style[label])
        for label, points in sorted(lines_of.items(), key=lambda item: "grey" not in style[item[0]])
    ]
    floor, ceiling = _limits(list(lines_of.values()), primary)
    beyond = any(y < floor or y > ceiling for one in series for _, y in one.points)
    low = ", lower is better" if primary.metric.higher is False else ""
    cut = " Figures far worse than the others are drawn at the edge." if beyond else ""
    return Chart(
        "Response to the learning rate",
        chart(
            series,
            "learning rate",
            f"validation {primary.metric.label}{low}",
            logarithmic=True,
            floor=floor,
            ceiling=ceiling,
        ),
        tuple((one.name, one.style) for one in series),
        f"Mean validation figure of {' and '.join(names)} at each rate that was tried; the "
        "rate that a strategy is reported at is marked by a larger point. Flat tops that agree "
        f"mean that strategies differ by their rate alone.{cut}",
    )


def front(conclusion: Conclusion) -> Chart | None:
    """Two objectives of all strategies, with the fixed weights joined; None without such."""
    whole = [one for one in conclusion.trained if one.only is None and one.done]
    fixed = [one for one in whole if one.strategy.startswith(FIXED)]
    if not fixed or len(whole[0].done[0]["test"]) < 2:
        return None
    x_name, y_name = list(whole[0].done[0]["test"])[:2]
    metrics = [metric_of(whole[0].done[0], name) for name in (x_name, y_name)]
    low = [", lower is better" if metric.higher is False else "" for metric in metrics]

    def at(label: str) -> tuple[float, float]:
        (one,) = (x for x in whole if x.strategy == label)
        x, y = (statistics.fmean(one.figures(name).values()) for name in (x_name, y_name))
        return x, y

    baselines = [*(one.strategy for one in fixed), *_grey(conclusion)[:1]]
    path = sorted({at(label) for label in baselines if any(x.strategy == label for x in whole)})
    others = [one.strategy for one in whole if not one.strategy.startswith(FIXED)]
    style = styles(others, _grey(conclusion))
    series = [Series("fixed weights and sum", tuple(path), style="grey g0")]
    names = conclusion.names
    series += [Series(names.of(x), (at(x),), style=style[x], joined=False) for x in others]
    left = " Further objectives are in the table." if len(whole[0].done[0]["test"]) > 2 else ""
    return Chart(
        "Fixed weights and strategies",
        chart(
            series,
            f"{x_name}: {metrics[0].label}{low[0]}",
            f"{y_name}: {metrics[1].label}{low[1]}",
        ),
        tuple((one.name, one.style) for one in series),
        "Test figures, means over seeds. A strategy is worth its cost where it lies beyond the "
        f"line of fixed weights.{left}",
    )


def _grey(conclusion: Conclusion) -> list[str]:
    return [one.strategy for one in conclusion.trained if is_baseline(one)]


def _limits(
    curves: Sequence[Sequence[tuple[float, float]]], primary: Primary
) -> tuple[float, float]:
    """The range that is drawn: a diverged figure would press all lines into one.

    It goes from the best figure to six times as far as the curves' tops are from each other, and
    as far as half of all figures at least.
    """
    sign = -1 if primary.metric.higher is False else 1
    values = sorted((sign * y for curve in curves for _, y in curve), reverse=True)
    tops = [max(sign * y for _, y in curve) for curve in curves if curve]
    best = values[0]
    middle = values[len(values) // 2]
    least = best - max(6 * (best - min(tops)), 3 * (best - middle))
    worst = max(least, values[-1])
    return (worst, best) if sign > 0 else (-best, -worst)

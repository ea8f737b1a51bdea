"""Charts as inline SVG, coloured by the classes of the page, light or dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46  # room for the labels of the axes
COLOURS = 8  # that the page has; beyond, lines are dashed


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: in the legend.
        points: (x, y), by x.
        marked: the x that is drawn larger; None where there is none.
        style: the class that colours it.
        joined: whether its points are joined.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    marked: float | None = None
    style: str = ""
    joined: bool = True


def styles(names: Sequence[str], grey: Sequence[str] = ()) -> dict[str, str]:
    """A class per name: greys for the baselines, colours for the others, then dashed ones."""
    found = {}
    others = [name for name in names if name not in grey]
    for k, name in enumerate([name for name in names if name in grey]):
        found[name] = f"grey g{k % 4}"
    for k, name in enumerate(others):
        found[name] = f"s{k % COLOURS}" + (" dashed" if k >= COLOURS else "")
    return found


def chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> str:
    """Lines or points over two axes.

    Args:
        series: at least one point in all.
        x_label, y_label: of the axes.
        logarithmic: whether x is.
        floor, ceiling: figures beyond are drawn at the edge.
    """
    xs = [math.log10(x) if logarithmic else x for one in series for x, _ in one.points]
    low = -math.inf if floor is None else floor
    high = math.inf if ceiling is None else ceiling
    ys = [min(max(y, low), high) for one in series for _, y in one.points]
    x_range, y_range = _room(min(xs), max(xs), 0.03), _room(min(ys), max(ys), 0.06)

    def across(x: float) -> float:
        share = ((math.log10(x) if logarithmic else x) - x_range[0]) / (x_range[1] - x_range[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        share = (min(max(y, low), high) - y_range[0]) / (y_range[1] - y_range[0])
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} against {escape(x_label)}">'
    ]
    for y in ticks(*y_range):
        parts.append(f'<path class="grid" d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}"/>')
        place = f'x="{LEFT - 6}" y="{up(y) + 4:.1f}"'
        parts.append(f'<text class="tick" text-anchor="end" {place}>{y:.6g}</text>')
    values = _rates(series) if logarithmic else ticks(*x_range)
    for x in values:
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{across(x):.1f}" '
            f'y="{HEIGHT - BOTTOM + 18}">{x:.3g}</text>'
        )
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(
        f'<text class="label" text-anchor="middle" x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 8}">'
        f"{escape(x_label)}</text>"
        f'<text class="label" text-anchor="middle" transform="translate(14 {middle}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )
    for one in series:
        parts.append(f'<g class="series {one.style}" data-name="{escape(one.name)}">')
        parts.append(f"<title>{escape(one.name)}</title>")
        if one.joined and len(one.points) > 1:
            path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in one.points)
            parts.append(f'<path class="line" d="M{path}"/>')
        for x, y in one.points:
            large = not one.joined or (one.marked is not None and math.isclose(x, one.marked))
            size = 5.5 if large else 2.5
            parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="{size}"/>')
        parts.append("</g>")
    return "".join(parts) + "</svg>"


def strip(
    mean: float,
    interval: tuple[float, float] | None,
    reach: float,
    delta: float | None,
    verdict: str,
) -> str:
    """An interval on a line about zero, with the band of ±δ.

    Args:
        mean: the difference.
        interval: of it; None where there is none.
        reach: the largest number that the line has, the same in all rows of a table.
        delta: half the band's width; None where no difference was declared.
        verdict: the class that colours it.
    """
    wide, half = 120, 56
    scale = half / reach if reach > 0 else 0.0

    def at(x: float) -> float:
        return wide / 2 + scale * x

    parts = [f'<svg class="strip" viewBox="0 0 {wide} 14" aria-hidden="true">']
    if delta is not None:
        parts.append(
            f'<rect class="band" x="{at(-delta):.1f}" y="1" width="{2 * scale * delta:.1f}" '
            'height="12"/>'
        )
    parts.append(f'<path class="axis" d="M{wide / 2} 0V14"/><g class="{verdict}">')
    if interval is not None:
        parts.append(f'<path class="line" d="M{at(interval[0]):.1f} 7H{at(interval[1]):.1f}"/>')
    parts.append(f'<circle cx="{at(mean):.1f}" cy="7" r="3"/></g></svg>')
    return "".join(parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two others.

    >>> ticks(0.13, 0.98)
    [0.2, 0.4, 0.6, 0.8]
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _rates(series: Sequence[Series]) -> list[float]:
    """Learning rates to print: at most eight, not on top of each other."""
    found = sorted({x for one in series for x, _ in one.points})
    kept = found[:1]
    least = (math.log10(found[-1]) - math.log10(found[0])) / 8
    for x in found[1:]:
        if math.log10(x) - math.log10(kept[-1]) >= least:
            kept.append(x)
    return kept


def _room(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with some room at its ends, and one of its own for a single number."""
    width = high - low or abs(high) * 0.1 or 1.0
    return low - share * width, high + share * width

"""What rows say of the course of runs: cosines over steps, the time to a figure, and memory."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from gradsurgery.compare.choice import Line
from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.grouped import BASELINES, Trained
from gradsurgery.compare.primary import Primary
from gradsurgery.report.charts import Chart
from gradsurgery.report.drawing import Series, chart, styles
from gradsurgery.report.strategies import is_baseline, named
from gradsurgery.report.table import Cell, Row, Table

NONE = "-"
EVALUATIONS = "gradsurgery compare --evaluations 8"
Points = tuple[tuple[float, float], ...]


def cosine_chart(conclusion: Conclusion) -> Chart | None:
    """The mean cosine over steps, a line per strategy; None where the rows have none."""
    found = {}
    for one in _whole(conclusion):
        at: dict[float, list[float]] = {}
        for line in one.done:
            for group in line.get("trace", {}).values():
                for step, cosine in zip(group["steps"], group["cosine"], strict=True):
                    at.setdefault(step, []).append(cosine)
        points = tuple((step, statistics.fmean(at[step])) for step in sorted(at))
        if len(points) > 1:
            found[one.strategy] = points
    caption = (
        "The cosine of two objectives' gradients on one batch, along each strategy's own runs: "
        "mean over pairs, groups and seeds. Near 0 half the batches conflict by chance; only "
        "below 0 by more than noise does one objective's step raise another's loss."
    )
    return _drawn("Cosine over training", found, conclusion, "step", "mean cosine", caption)


def time_chart(conclusion: Conclusion) -> Chart | None:
    """The primary validation figure over seconds of training; None where runs have none."""
    primary = conclusion.primary
    if primary is None:
        return None
    found = {}
    for one in _whole(conclusion):
        runs = [points for line in one.done if (points := _course(line, primary, "seconds"))]
        least = min((len(points) for points in runs), default=0)
        if least > 1:
            found[one.strategy] = tuple(
                (statistics.fmean(p[k][0] for p in runs), statistics.fmean(p[k][1] for p in runs))
                for k in range(least)
            )
    low = ", lower is better" if primary.metric.higher is False else ""
    caption = (
        f"Validation {primary.metric.label} of {primary.name}, mean over seeds, at each "
        "evaluation along the run. Seconds are of training, inspections included and evaluations "
        "not, beside whatever else the machine did."
    )
    label = f"validation {primary.metric.label}{low}"
    return _drawn("Figure against time", found, conclusion, "seconds of training", label, caption)


def cost_table(conclusion: Conclusion) -> Table | None:
    """Steps and seconds to the level of `sum`, and memory; None where the rows have neither."""
    level = _level(conclusion)
    shown = [one for one in conclusion.trained if one.done]
    memory = any(line.get("memory") for one in shown for line in one.done)
    if level is None and not memory:
        return None
    headings = [Cell("strategy")]
    notes = []
    if level is not None:
        headings += [Cell("steps", note="to that level"), Cell("seconds", note="to that level")]
        headings.append(Cell("reached", note="of the runs"))
        notes.append(
            f"The level is the mean validation figure of sum at its end, {level[1]:.4g}. A run has "
            "reached it at its first evaluation that is as good. Medians over runs; one that "
            "never is counts as the last."
        )
    if memory:
        headings.append(Cell("memory", note="peak, MB"))
        notes += _of_memory([line for one in shown for line in one.done])
    rows = []
    for one in shown:
        cells = [named(one.strategy, conclusion)]
        if level is not None:
            cells += _reached(one, level)
        if memory:
            cells.append(_memory(one.done))
        rows.append(Row(tuple(cells), is_baseline(one)))
    rows.sort(key=lambda row: not row.grey)
    return Table(tuple(headings), tuple(rows), tuple(notes))


def not_measured(conclusions: Iterable[Conclusion]) -> list[str]:
    """What the rows do not have of the course of runs, and how to have it, in sentences."""
    rows = [line for one in conclusions for x in one.trained for line in x.done]
    said = []
    if not any("trace" in line for line in rows):
        said.append(
            "Not there: cosines over the course of runs. These rows are of a version that did not "
            "keep them."
        )
    if not any("along" in line for line in rows):
        said.append(
            f"Not measured: the time to reach a figure. {EVALUATIONS} evaluates along each run."
        )
    if not any(line.get("memory") for line in rows):
        said.append("Not measured: memory. These rows are of a version that did not, or failed.")
    return said


def _whole(conclusion: Conclusion) -> list[Trained]:
    return [one for one in conclusion.trained if one.only is None and one.done]


def _course(line: Line, primary: Primary, over: str) -> Points:
    """The primary validation figure along one run, over "steps" or "seconds"."""
    along = line.get("along")
    if not along:
        return ()
    figures: Mapping[str, Sequence[float | None]] = along["validation"]
    found = []
    for k, at in enumerate(along[over]):
        value = primary.value({name: values[k] for name, values in figures.items()})
        if value is not None:
            found.append((float(at), value))
    return tuple(found)


def _level(conclusion: Conclusion) -> tuple[Primary, float] | None:
    """The primary figure, and its mean for `sum` at the end of its runs, on validation data."""
    primary = conclusion.primary
    if primary is None or not any("along" in x for one in conclusion.trained for x in one.done):
        return None
    base = next((one for one in conclusion.trained if one.strategy == BASELINES[0]), None)
    values = [primary.value(line["validation"]) for line in ([] if base is None else base.done)]
    known = [value for value in values if value is not None]
    return (primary, statistics.fmean(known)) if known else None


def _reached(one: Trained, level: tuple[Primary, float]) -> list[Cell]:
    primary, wanted = level
    sign = -1 if primary.metric.higher is False else 1
    first: dict[str, list[float]] = {"steps": [], "seconds": []}
    seen = [line for line in one.done if one.only is None and line.get("along")]
    for over, kept in first.items():
        for line in seen:
            course = _course(line, primary, over)
            kept.append(next((x for x, y in course if sign * y >= sign * wanted), math.inf))
    if not seen:
        return [Cell(NONE), Cell(NONE), Cell(NONE)]
    cells = []
    for over, form in (("steps", ".0f"), ("seconds", ".3g")):
        middle = statistics.median(first[over])
        never = math.isinf(middle)
        cells.append(Cell("never" if never else f"{middle:{form}}", None if never else middle))
    count = sum(map(math.isfinite, first["steps"]))
    return [*cells, Cell(f"{count} of {len(seen)}", count / len(seen))]


def _memory(rows: Sequence[Line]) -> Cell:
    said = [line["memory"] for line in rows if line.get("memory")]
    peaks = [one["cuda_mb"] if "cuda_mb" in one else one.get("peak_mb") for one in said]
    known = [peak for peak in peaks if peak is not None]
    if not known:
        return Cell(NONE)
    middle = statistics.median(known)
    return Cell(f"{middle:.0f}", middle)


def _of_memory(rows: Sequence[Line]) -> list[str]:
    said = [line["memory"] for line in rows if line.get("memory")]
    if any("cuda_mb" in one for one in said):
        return ["Memory: the peak that torch allocated on the GPU since the process began."]
    notes = [
        "Memory: the peak of the process that trained, with Python, torch and the data in it; the "
        "median over runs. Differences between strategies are what they add."
    ]
    if any(one.get("since") == "process" for one in said):
        notes.append(
            "This system has one peak per process, so that earlier runs of it are in the figure."
        )
    return notes


def _drawn(
    title: str,
    found: Mapping[str, Points],
    conclusion: Conclusion,
    x_label: str,
    y_label: str,
    caption: str,
) -> Chart | None:
    if not found:
        return None
    grey = [one.strategy for one in conclusion.trained if is_baseline(one)]
    style = styles(list(found), grey)
    series = [
        Series(conclusion.names.of(label), points, style=style[label])
        for label, points in sorted(found.items(), key=lambda item: "grey" not in style[item[0]])
    ]
    legend = tuple((one.name, one.style) for one in series)
    return Chart(title, chart(series, x_label, y_label), legend, caption)

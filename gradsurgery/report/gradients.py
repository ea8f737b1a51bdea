"""What `gradsurgery.diagnose` found along runs of `sum`: conflict beside its control."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradsurgery.compare.choice import Line
from gradsurgery.report.charts import Chart
from gradsurgery.report.drawing import Series, chart
from gradsurgery.report.table import Cell, Row, Table

NONE = "-"
HOW = "gradsurgery report FOLDER --diagnose"
BEYOND = "conflict beyond noise"
Steps = Mapping[int, Sequence[Mapping[str, Any]]]


def of_task(lines: Iterable[Line], task: str) -> dict[int, list[Mapping[str, Any]]]:
    """Step -> what was found at it, one per seed.

    Args:
        lines: of diagnoses.
        task: as a report calls it: with the optimizer, where there are several.
    """
    found: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        names = (line["task"], f"{line['task']}, {line['optimizer'] or 'its own optimizer'}")
        if line["kind"] == "diagnosis" and "error" not in line and task in names:
            for at in line["steps"]:
                if at["pairs"]:
                    found.setdefault(at["step"], []).append(at)
    return dict(sorted(found.items()))


def control_chart(found: Steps) -> Chart | None:
    """The conflict rate of two losses on one batch, beside that of one loss on two batches."""
    if len(found) < 2:
        return None
    both = [
        Series(name, tuple((step, 100 * _mean(at, field)) for step, at in found.items()), style=css)
        for name, field, css in (
            ("two losses, one batch", "conflict", "s0"),
            ("one loss, two batches", "control", "grey g1"),
        )
    ]
    return Chart(
        "Conflict beside its control",
        chart(both, "step of a run with sum", "batches in conflict, %", floor=0.0, ceiling=100.0),
        tuple((one.name, one.style) for one in both),
        "The share of batches on which two losses have a negative cosine, mean over pairs and "
        "seeds, and the same of two batches of one loss. A conflict rate says something where it "
        "is above that control.",
    )


def gradient_table(found: Steps) -> Table | None:
    """A row per step; None where nothing was diagnosed."""
    if not found:
        return None
    names = (
        Cell("step"),
        Cell("loss", note="% of the start"),
        Cell("conflict", note="% of batches"),
        Cell("control", note="one loss, two batches, %"),
        Cell("cosine", note="of mean gradients"),
        Cell("beyond noise", note="of the pairs"),
        Cell("length", note="other over joint, median"),
        Cell("relative noise", note="other over joint, median"),
    )
    rows = []
    roots = set()
    for step, at in found.items():
        pairs = [pair for one in at for pair in one["pairs"]]
        beyond = sum(pair["verdict"] == BEYOND for pair in pairs)
        held = [pair for pair in pairs if pair.get("assumption")]
        roots |= {round(pair["root"], 2) for pair in held if pair.get("root")}
        share = statistics.fmean(one["share"] for one in at)
        rows.append(
            Row(
                (
                    Cell(str(step), step),
                    _cell(100 * share, ".0f"),
                    _cell(100 * _mean(at, "conflict"), ".0f"),
                    _cell(100 * _mean(at, "control"), ".0f"),
                    _cell(_mean(at, "cosine"), "+.2f"),
                    Cell(f"{beyond} of {len(pairs)}", beyond / len(pairs)),
                    _cell(_median(held, "length_ratio"), ".2f"),
                    _cell(_median(held, "noise_ratio"), ".2f"),
                )
            )
        )
    seeds = max(len(at) for at in found.values())
    notes = [
        f"gradsurgery.diagnose at frozen weights along runs of sum, {seeds} seeds: mean over pairs "
        "of objectives, groups and seeds."
    ]
    if roots:
        listed = " and ".join(f"{root:g}" for root in sorted(roots))
        notes.append(f"With initial weights the ratio of lengths is about √M, {listed} here.")
    return Table(names, tuple(rows), tuple(notes))


def not_diagnosed(lines: Sequence[Line]) -> list[str]:
    """How to have the control of conflict rates, where it is not there."""
    if any(line["kind"] == "diagnosis" and "error" not in line for line in lines):
        return []
    return [
        "Not measured: the control of conflict rates, two batches of one loss, and the noise of "
        f"gradients. {HOW} trains sum again and adds them."
    ]


def _values(at: Iterable[Mapping[str, Any]], field: str) -> list[float]:
    given = [pair[field] for one in at for pair in one["pairs"]]
    means = [statistics.fmean(x) if isinstance(x, list) else x for x in given if x is not None]
    return [float(x) for x in means]


def _mean(at: Iterable[Mapping[str, Any]], field: str) -> float:
    values = _values(at, field)
    return statistics.fmean(values) if values else float("nan")


def _median(pairs: Iterable[Mapping[str, Any]], field: str) -> float:
    values = [pair[field] for pair in pairs if pair[field] is not None]
    return statistics.median(values) if values else float("nan")


def _cell(value: float, form: str) -> Cell:
    return Cell(NONE) if value != value else Cell(f"{value:{form}}", value)

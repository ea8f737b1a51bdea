"""The comparison as tables for a terminal, with what to keep in mind when reading them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gradsurgery.compare.columns import Column, form_of, tables, written
from gradsurgery.compare.names import short_names
from gradsurgery.compare.plan import BASELINE, Plan
from gradsurgery.compare.summary import Row

if TYPE_CHECKING:
    from rich.table import Table

FAILED = "figure"  # the heading where every run failed, or the figures have no common name
OTHER_SCALES = ("mean", "convex", "own")
READING = (
    "conflict rate: the share of inspected steps at which two objectives of a parameter group had "
    "a negative cosine; mean over groups and seeds.",
    "mean cosine: over pairs, inspected steps, groups and seeds. Orthogonal gradients have a "
    "negative cosine half the time: read the conflict rate beside it.",
    f"step time: median of alternating training steps without inspection, relative to {BASELINE}.",
)


def table(task: str, rows: Iterable[Row], tuned: bool = False) -> "Table":
    """One table: per strategy its test figures, conflict rate, mean cosine and step time.

    A figure is given per objective, as mean ± std over the seeds. `figure_tables` gives several,
    where one is too wide.
    """
    return figure_tables(task, rows, tuned)[0]


def figure_tables(
    task: str, rows: Iterable[Row], tuned: bool = False, width: int | None = None
) -> "list[Table]":
    """The same for a terminal of so many columns: what does not fit beside goes below."""
    rows = list(rows)
    objectives = list(dict.fromkeys(o for row in rows for o in row.accuracies)) or [FAILED]
    labels = {o: label for row in rows for o, label in (row.labels or {}).items()}
    better = {o: word for row in rows for o, word in (row.better or {}).items()}
    figure = next((row.figure for row in rows if row.seeds), FAILED)
    figure = "figures" if figure == FAILED and labels else figure  # each heading says its own
    seeds = max((len(row.seeds) for row in rows), default=0)
    over = f"mean ± std over {seeds} seeds" if seeds > 1 else "one seed"
    title = f"{task}: test {figure}, {over}" if seeds else f"{task}: no run gave a figure"
    names = short_names(row.strategy for row in rows)
    figures = []
    for objective in objectives:
        more = f": {labels[objective]}" if objective in labels else ""
        more += " (lower is better)" if better.get(objective) == "lower" else ""
        form = form_of(x for row in rows for x in row.accuracies.get(objective, ()))
        cells = [_figure(row, objective, form) if row.seeds else "failed" for row in rows]
        figures.append(Column(objective + more, cells))
    steps = [
        Column("conflict rate", [_or_dash(row.conflict_rate, ".1f", " %") for row in rows]),
        Column("mean cosine", [_or_dash(row.mean_cosine, "+.2f") for row in rows]),
        Column("step time", [_or_dash(row.step_time, ".2f", " x") for row in rows]),
    ]
    if tuned:
        steps.append(Column("lr", [f"{row.lr:.3g}" for row in rows]))
    first = Column("strategy", [names.of(row.strategy) for row in rows], left=True)
    return tables(title, first, [figures, steps], width)


def _or_dash(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _figure(row: Row, objective: str, form: str) -> str:
    std = row.std(objective)
    mark = " !" if objective in row.at_chance else ""
    spread = "" if std is None else f" ± {written(std, form)}"
    return written(row.mean(objective), form) + spread + mark


def remarks(summary: Mapping[str, Sequence[Row]], plan: Plan) -> list[str]:
    """What the tables do not say: what was measured how, what to be careful with, what failed."""
    seeds = max((len(row.seeds) for rows in summary.values() for row in rows), default=0)
    notes = list(READING) if seeds else []
    if 1 < seeds < 5:
        notes.append(
            f"± is the sample standard deviation over {seeds} seeds: "
            "differences of that size mean nothing yet."
        )
    shown = {row.strategy for rows in summary.values() for row in rows if row.seeds}
    others = [
        f"{label} ({strategy.scale})"
        for label, strategy in plan.strategies.items()
        if strategy.scale in OTHER_SCALES and label in shown
    ]
    if seeds and not plan.lrs and not plan.tune:
        rates = ", ".join(f"{task.name} {task.lr:.3g}" for task in plan.tasks)
        notes.append(
            f"untuned: all strategies at one learning rate, the middle of the task's ({rates}). "
            "Which one comes out best depends on it; --tune searches each strategy's own."
        )
    if others and not plan.choosing:
        notes.append(
            f"scale: each strategy keeps its paper's; steps of {', '.join(others)} have another "
            "length than a sum's at the same learning rate, often a shorter one. With --tune each "
            "is reported at the rate that is best for it on validation data."
        )
    for task, rows in summary.items():
        names = short_names(row.strategy for row in rows)
        if plan.choosing and any(row.seeds and row.better is None for row in rows):
            notes.append(
                f"{task}: the task does not say whether its figures are better higher or lower "
                "(Problem(better=...)), so that the learning rate was chosen by the validation "
                "losses."
            )
        for row in rows:
            which = f"{task}, {names.of(row.strategy)}"
            if len(row.seeds) < seeds:
                notes.append(f"{which}: {len(row.seeds)} of {seeds} seeds.")
            if row.at_chance:
                notes.append(f"! {which}: no better than guessing in {', '.join(row.at_chance)}.")
            notes += [f"failed: {which}, {error}" for error in _once(row.errors)]
    if any(row.errors for rows in summary.values() for row in rows):
        notes.append(
            "Failed runs are kept as they are, and not trained again: give another --out once the "
            "cause is mended."
        )
    return notes


def _once(errors: Iterable[str]) -> list[str]:
    """The errors that differ in more than the run, each with how many more are like it."""
    alike: dict[str, list[str]] = {}
    for error in errors:
        alike.setdefault(error.partition(": ")[2], []).append(error)
    return [
        first if not rest else f"{first} ({len(rest)} more like it)"
        for first, *rest in alike.values()
    ]

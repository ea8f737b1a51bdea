"""The comparison as tables for a terminal, with what to keep in mind when reading them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gradsurgery.compare.plan import BASELINE, Plan
from gradsurgery.compare.summary import Row
from gradsurgery.errors import extra

if TYPE_CHECKING:
    from rich.table import Table

FAILED = "figure"  # the heading where every run failed, or the figures have no common name
OTHER_SCALES = ("mean", "convex", "own")


def table(task: str, rows: Iterable[Row], tuned: bool = False) -> "Table":
    """One table: per strategy its test figures, conflict rate, mean cosine and step time.

    A figure is given per objective, as mean ± std over the seeds.
    """
    with extra("compare", "the table"):
        from rich import box
        from rich.table import Table

    rows = list(rows)
    objectives = list(dict.fromkeys(o for row in rows for o in row.accuracies)) or [FAILED]
    labels = {o: label for row in rows for o, label in (row.labels or {}).items()}
    better = {o: word for row in rows for o, word in (row.better or {}).items()}
    figure = next((row.figure for row in rows if row.seeds), FAILED)
    seeds = max((len(row.seeds) for row in rows), default=0)
    over = f"mean ± std over {seeds} seeds" if seeds > 1 else "one seed"
    made = Table(
        title=f"{task}: test {figure}, {over}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    made.add_column(
        "strategy",
        overflow="fold",
        min_width=min(20, max(map(len, [row.strategy for row in rows]), default=0)),
    )
    for objective in objectives:
        more = f": {labels[objective]}" if objective in labels else ""
        more += " (lower is better)" if better.get(objective) == "lower" else ""
        made.add_column(objective + more, justify="right", no_wrap=not more)
    made.add_column("conflict rate", justify="right")
    made.add_column("mean cosine", justify="right")
    made.add_column("step time", justify="right")
    if tuned:
        made.add_column("lr", justify="right")
    for row in rows:
        cells = [_figure(row, o, _form(rows, o)) if row.seeds else "failed" for o in objectives]
        conflict = "-" if row.conflict_rate is None else f"{row.conflict_rate:.1f} %"
        cosine = "-" if row.mean_cosine is None else f"{row.mean_cosine:+.2f}"
        time = "-" if row.step_time is None else f"{row.step_time:.2f} x"
        made.add_row(
            row.strategy, *cells, conflict, cosine, time, *([f"{row.lr:g}"] if tuned else [])
        )
    return made


def _form(rows: Iterable[Row], objective: str) -> str:
    """One decimal for percentages and what is as large; three digits for smaller figures."""
    largest = max((abs(x) for row in rows for x in row.accuracies.get(objective, ())), default=0.0)
    return ".1f" if largest >= 10 else ".3g"


def _figure(row: Row, objective: str, form: str) -> str:
    std = row.std(objective)
    mark = " !" if objective in row.at_chance else ""
    return f"{row.mean(objective):{form}}" + ("" if std is None else f" ± {std:{form}}") + mark


def remarks(summary: Mapping[str, Sequence[Row]], plan: Plan) -> list[str]:
    """What the tables do not say: what was measured how, what to be careful with, what failed."""
    seeds = max((len(row.seeds) for rows in summary.values() for row in rows), default=0)
    notes = [
        "conflict rate: inspected steps at which two objectives of a parameter group had a "
        "negative cosine; mean over groups and seeds.",
        "mean cosine: over pairs, inspected steps, groups and seeds. Orthogonal gradients have a "
        "negative cosine half the time: read the conflict rate beside it.",
        "step time: median of alternating training steps without inspection, "
        f"relative to {BASELINE}.",
    ]
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
    if not plan.lrs and not plan.tune:
        rates = ", ".join(f"{task.name} {task.lr:.3g}" for task in plan.tasks)
        notes.append(
            f"untuned: all strategies at one learning rate, the middle of the task's ({rates}). "
            "Which one comes out best depends on it; --lr 0.01,0.02,0.03 tries several."
        )
    if others and not plan.choosing:
        notes.append(
            f"scale: each strategy keeps its paper's; steps of {', '.join(others)} have another "
            "length than a sum's at the same learning rate, often a shorter one. With several "
            "learning rates (--lr 0.01,0.03) each is reported at the one that is best for it on "
            "validation data."
        )
    for task, rows in summary.items():
        if plan.choosing and any(row.seeds and row.better is None for row in rows):
            notes.append(
                f"{task}: the task does not say whether its figures are better higher or lower "
                "(Problem(better=...)), so that the learning rate was chosen by the validation "
                "losses."
            )
        for row in rows:
            if len(row.seeds) < seeds:
                notes.append(f"{task}, {row.strategy}: {len(row.seeds)} of {seeds} seeds.")
            if row.at_chance:
                where = ", ".join(row.at_chance)
                notes.append(f"! {task}, {row.strategy}: no better than guessing in {where}.")
            notes += [f"failed: {task}, {row.strategy}, {error}" for error in row.errors]
    return notes

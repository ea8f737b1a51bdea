"""What a report says, as data: read from the rows of a comparison."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gradsurgery.compare import Results
from gradsurgery.compare.choice import Line
from gradsurgery.compare.conclusion import Conclusion, conclude
from gradsurgery.compare.grouped import prepared
from gradsurgery.compare.sentences import rank_sentence, verdict_sentences
from gradsurgery.errors import InputError
from gradsurgery.report import facts
from gradsurgery.report.along import cosine_chart, cost_table, not_measured, time_chart
from gradsurgery.report.charts import Chart, charts
from gradsurgery.report.conflicts import conflict_table
from gradsurgery.report.gradients import (
    control_chart,
    gradient_table,
    not_diagnosed,
    of_task,
)
from gradsurgery.report.strategies import strategy_table
from gradsurgery.report.table import Table


@dataclass(frozen=True)
class TaskPart:
    """What a report says of one task.

    Attributes:
        name: of the task.
        heading: what was compared.
        verdicts: in sentences, written from the rows.
        table: a row per strategy.
        charts: those that the rows allow.
        conflicts: by parameter group; None where the rows have none.
        gradients: along runs of `sum`, as `gradsurgery.diagnose` found them; None without.
        cost: time to the level of `sum`, and memory; None where the rows have neither.
    """

    name: str
    heading: str
    verdicts: tuple[str, ...]
    table: Table
    charts: tuple[Chart, ...]
    conflicts: Table | None
    gradients: Table | None = None
    cost: Table | None = None


@dataclass(frozen=True)
class Page:
    """What a report says.

    Attributes:
        title: with the tasks.
        started: when the comparison began, as its rows say.
        tasks: a part per task.
        ranks: mean ranks over tasks, as a description; None with fewer than two.
        failures: the runs that failed; None where none did.
        rules: what was declared and how it was judged.
        machine: where it ran.
        command: that makes it again.
        limitations: what the rows do not show.
        notes: what was not read, a sentence each.
    """

    title: str
    started: str
    tasks: tuple[TaskPart, ...]
    ranks: str | None
    failures: Table | None
    rules: facts.Facts
    machine: facts.Facts
    command: str
    limitations: tuple[str, ...]
    notes: tuple[str, ...] = ()


def page_of(
    lines: "Iterable[Line] | Results", notes: Iterable[str] = (), measured: Sequence[Line] = ()
) -> Page:
    """What the rows of a comparison say.

    Args:
        lines: as `read_results` gives them; or what `compare` returned.
        notes: what was not read of its files, a sentence each.
        measured: lines of diagnoses (`report --diagnose`, `gradsurgery study`).

    Raises:
        InputError: for no runs, or what are no lines of results.
    """
    given = lines.lines if isinstance(lines, Results) else list(lines)
    lines = prepared(given)
    conclusions = conclude(given)  # of the lines as they are: tasks are told apart once
    if not conclusions:
        tried = sum(line["kind"] == "tune" for line in lines)
        only = f", only {tried} of the search of learning rates" if tried else ""
        raise InputError(
            f"there are no runs yet to report on{only}: let `gradsurgery compare` finish one "
            "first; the same command on the same --out goes on."
        )
    setup: dict[str, Any] = next((line for line in given if line["kind"] == "setup"), {})
    times = {line["task"]: line["times"] for line in lines if line["kind"] == "timing"}
    return Page(
        title=f"Comparison on {', '.join(conclusions)}",
        started=str(setup.get("started", "")),
        tasks=tuple(
            _part(lines, one, times.get(task, {}), measured) for task, one in conclusions.items()
        ),
        ranks=rank_sentence(conclusions),
        failures=facts.failures(lines),
        rules=facts.rules(conclusions, setup),
        machine=facts.machine(lines, setup),
        command=facts.command(setup, conclusions),
        limitations=(
            *facts.limitations(conclusions, setup),
            *not_measured(conclusions.values()),
            *not_diagnosed(measured),
        ),
        notes=tuple(notes),
    )


def _part(
    lines: list[Line], one: Conclusion, times: dict[str, Any], measured: Sequence[Line]
) -> TaskPart:
    heading, *verdicts = verdict_sentences(one)
    diagnosed = of_task(measured, one.task)
    more = (time_chart(one), cosine_chart(one), control_chart(diagnosed))
    return TaskPart(
        one.task,
        heading,
        tuple(verdicts),
        strategy_table(one, times),
        (*charts(lines, one), *(chart for chart in more if chart is not None)),
        conflict_table(one),
        gradient_table(diagnosed),
        cost_table(one),
    )

"""The one figure of a task that verdicts are about."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradsurgery.compare.choice import Line, directions, metric_of
from gradsurgery.compare.grouped import Trained
from gradsurgery.tasks import Metric


@dataclass(frozen=True)
class Primary:
    """The figure that verdicts are about.

    Attributes:
        objectives: whose figures it is the mean of; most often one.
        metric: what it is; its direction is None where the task does not say it.
        declared: whether the task declares it.
        delta: the difference below which two strategies count as equivalent; None where none was
            declared.
        ratio: of the corrected interval, where seeds re-split one pool of data; None otherwise.
    """

    objectives: tuple[str, ...]
    metric: Metric
    declared: bool
    delta: float | None = None
    ratio: float | None = None

    @property
    def name(self) -> str:
        """As the heading of a column has it."""
        return self.objectives[0] if len(self.objectives) == 1 else "mean"

    @property
    def unit(self) -> str:
        """The unit of a difference: percentages differ by points."""
        return "points" if self.metric.unit == "%" else self.metric.unit

    @property
    def said(self) -> str:
        """What it is, and why, in words."""
        low = ", lower is better" if self.metric.higher is False else ""
        if self.declared:
            return f"{self.metric.label} of {self.name}, the declared primary figure{low}"
        if len(self.objectives) > 1:
            parts = f"the mean of {len(self.objectives)} objectives"
            return f"{self.metric.label}, {parts} as no primary figure is declared{low}"
        return f"{self.metric.label} of {self.name}, as no primary figure is declared{low}"

    def of(self, one: Trained) -> dict[int, float]:
        """Seed -> the figure of a strategy, where it has one."""
        found = {line["seed"]: self.value(line["test"]) for line in one.done}
        return {seed: figure for seed, figure in found.items() if figure is not None}

    def value(self, figures: Mapping[str, float | None]) -> float | None:
        """The figure, from those of a run; None where one of them was not trained."""
        given = [figures[o] for o in self.objectives]
        there = [figure for figure in given if figure is not None]
        return statistics.fmean(there) if len(there) == len(given) else None


def unknown_primary(primary: str | None, names: Collection[str]) -> str | None:
    """What is wrong with a declared figure that the task does not have; None where all is well.

    Args:
        primary: as the task declares it; None where it does not.
        names: of its figures; empty where they are not known yet.
    """
    if primary is None or not names or primary in names:
        return None
    listed = ", ".join(map(repr, names))
    return f"primary={primary!r} is no figure of the task, which has {listed}."


def judged_of(metrics: Mapping[str, Metric]) -> tuple[str, ...]:
    """The figures that verdicts are about where none is declared: all of one kind, or the first.

    Args:
        metrics: name -> what each figure of the task is, in its order.
    """
    names = tuple(metrics)
    kinds = {(metric.label, metric.higher) for metric in metrics.values()}
    return names if len(kinds) == 1 else names[:1]


def primary_of(found: Sequence[Trained], declared: Mapping[str, Any]) -> Primary | None:
    """The figure that verdicts of a task are about; None where every run failed.

    The declared one. Without it the mean of the figures, where all are of one kind, and else the
    first.

    Args:
        found: the strategies of the task.
        declared: what the line of the setup says of it.
    """
    whole = sorted(found, key=lambda one: one.only is not None)
    row = next((one.done[0] for one in whole if one.done), None)
    if row is None:
        return None
    named = str(row.get("primary") or declared.get("primary"))
    objectives = tuple(row["test"])
    numbers = {name: declared.get(name) for name in ("delta", "ratio")}
    if named in objectives:
        return Primary((named,), _metric(row, [named]), True, **numbers)
    chosen = judged_of({o: metric_of(row, o) for o in objectives})
    return Primary(chosen, _metric(row, chosen), False, **numbers)


def _metric(row: Line, objectives: Iterable[str]) -> Metric:
    first = next(iter(objectives))
    metric = metric_of(row, first)
    if metric.higher is None and (word := (directions(row) or {}).get(first)):
        return Metric(metric.name, unit=metric.unit, higher=word == "higher", chance=metric.chance)
    return metric

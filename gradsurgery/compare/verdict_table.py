"""The verdicts of a task as a table for a terminal."""

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gradsurgery.compare.columns import Column, form_of, tables, written
from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.grouped import BASELINES, Trained
from gradsurgery.compare.primary import Primary
from gradsurgery.compare.statistics import Comparison
from gradsurgery.compare.statistics.words import number

if TYPE_CHECKING:
    from rich.table import Table

NONE = "-"
WIDE = 100  # columns, from which the table has all it can


def verdict_table(conclusion: Conclusion, width: int = WIDE) -> "Table | None":
    """Per strategy: its primary figure, the difference to `sum` with its interval, the verdicts.

    None where every run failed, or there is nothing to compare with. Below 100 columns the verdict
    against the second baseline is left to the sentences, and what does not fit to
    `verdict_tables`.
    """
    return next(iter(verdict_tables(conclusion, width)), None)


def verdict_tables(conclusion: Conclusion, width: int = WIDE) -> "list[Table]":
    """The same, with Δm and the learning rate in a table below where they do not fit beside."""
    primary = conclusion.primary
    if primary is None or not conclusion.families:
        return []
    against = [baseline for baseline in BASELINES if baseline in conclusion.families]
    first, *others = against
    others = others if width >= WIDE else []
    unit = f" in {primary.unit}" if primary.unit else ""
    low = ", lower is better" if primary.metric.higher is False else ""
    figures = primary.metric.label + low
    untuned = ", untuned" if conclusion.tuning == "untuned" else ""
    title = f"{conclusion.task}: verdicts on {primary.name} ({figures}){untuned}"
    trained, names = conclusion.trained, conclusion.names
    form = form_of(x for one in trained for x in primary.of(one).values())
    found = [conclusion.against(first, one.strategy) for one in trained]
    like = usual(found)
    deltas = [difference(one, primary.unit, like) for one in found]
    columns = [
        Column(primary.name, [figure(one, primary, form) for one in trained]),
        Column(f"Δ to {first}{unit}\n[95 % interval]", deltas),
        Column("verdict", [verdict(conclusion, first, one) for one in trained], left=True),
    ]
    for other in others:
        words = [verdict(conclusion, other, one) for one in trained]
        columns.append(Column(f"verdict to\n{other}", words, left=True))
    more = []
    if conclusion.gains:
        more.append(Column("Δm in %", [_gain(conclusion, one) for one in trained]))
    if conclusion.tuning != "untuned":
        more.append(Column("lr", [f"{one.lr:.3g}" for one in trained]))
    label = Column("strategy", [names.of(one.strategy) for one in trained], left=True)
    return tables(title, label, [columns, more], width)


def _gain(conclusion: Conclusion, one: Trained) -> str:
    gains = conclusion.gains.get(one.strategy)
    mean = None if gains is None else gains.mean
    return NONE if mean is None else f"{mean:+.1f}"


def figure(one: Trained, primary: Primary, form: str) -> str:
    """The mean ± standard deviation over seeds, in the form of the column."""
    values = list(primary.of(one).values())
    if not values:
        return NONE if one.done else "failed"
    spread = f" ± {written(statistics.stdev(values), form)}" if len(values) > 1 else ""
    return written(statistics.fmean(values), form) + spread


def usual(found: Iterable[Comparison | None]) -> float | None:
    """The size by which the differences of a column are written; None without one."""
    sizes = [
        max(map(abs, (x.mean, *(x.interval or ())))) for x in found if x and x.mean is not None
    ]
    return statistics.median(filter(None, sizes)) if any(sizes) else None


def difference(found: Comparison | None, unit: str, usual: float | None = None) -> str:
    """The mean difference, with its 95 % interval where there is one; points have two decimals.

    Others have as many as give the usual size of the column three digits.
    """
    if found is None or found.mean is None:
        return NONE
    values = (found.mean, *(found.interval or ()))
    like = max(map(abs, values))
    if unit == "points" and 0.1 < like < 1000:
        mean, *ends = (f"{x:+.2f}" for x in values)
    else:
        like = usual if usual and like < 100 * usual else like
        mean, *ends = (number(x, sign=True, like=like) for x in values)
    if not ends:
        return mean
    return f"{mean} [{', '.join(ends)}]"


def verdict(conclusion: Conclusion, baseline: str, one: Trained) -> str:
    """One word; a dash for the baseline itself, and where there is no verdict."""
    if one.strategy == baseline:
        return "baseline"
    found = conclusion.against(baseline, one.strategy)
    return NONE if found is None or baseline in conclusion.without else found.verdict

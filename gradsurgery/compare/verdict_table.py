"""The verdicts of a task as a table for a terminal."""

import statistics
from typing import TYPE_CHECKING

from gradsurgery.compare.conclusion import BASELINES, Conclusion
from gradsurgery.compare.grouped import Trained
from gradsurgery.compare.primary import Primary
from gradsurgery.compare.statistics import Comparison
from gradsurgery.compare.statistics.words import number
from gradsurgery.errors import extra

if TYPE_CHECKING:
    from rich.table import Table

NONE = "-"
WIDE = 100  # columns, from which the table has all it can


def verdict_table(conclusion: Conclusion, width: int = WIDE) -> "Table | None":
    """Per strategy: its primary figure, the difference to `sum` with its interval, the verdicts.

    None where every run failed, or there is nothing to compare with. Below 100 columns the verdict
    against the second baseline is left to the sentences.
    """
    with extra("compare", "the table"):
        from rich import box
        from rich.table import Table

    primary = conclusion.primary
    if primary is None or not conclusion.families:
        return None
    against = [baseline for baseline in BASELINES if baseline in conclusion.families]
    first, *others = against
    others = others if width >= WIDE else []
    unit = f" in {primary.unit}" if primary.unit else ""
    low = ", lower is better" if primary.metric.higher is False else ""
    figures = primary.metric.label + low
    untuned = ", untuned" if conclusion.tuning == "untuned" else ""
    made = Table(
        title=f"{conclusion.task}: verdicts on {primary.name} ({figures}){untuned}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    longest = max(len(one.strategy) for one in conclusion.trained)
    made.add_column("strategy", overflow="fold", min_width=min(16, longest))
    made.add_column(primary.name, justify="right", no_wrap=True)
    made.add_column(f"Δ to {first}{unit}\n[95 % interval]", justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for other in others:
        made.add_column(f"verdict to\n{other}", no_wrap=True)
    if conclusion.gains:
        made.add_column("Δm in %", justify="right", no_wrap=True)
    if conclusion.tuning != "untuned":
        made.add_column("lr", justify="right", no_wrap=True)
    for one in conclusion.trained:
        found = conclusion.against(first, one.strategy)
        cells = [
            figure(one, primary),
            difference(found, primary.unit),
            verdict(conclusion, first, one),
        ]
        cells += [verdict(conclusion, other, one) for other in others]
        if conclusion.gains:
            gains = conclusion.gains.get(one.strategy)
            mean = None if gains is None else gains.mean
            cells.append(NONE if mean is None else f"{mean:+.1f}")
        if conclusion.tuning != "untuned":
            cells.append(f"{one.lr:.3g}")
        made.add_row(one.strategy, *cells)
    return made


def figure(one: Trained, primary: Primary) -> str:
    """The mean ± standard deviation over seeds."""
    values = list(primary.of(one).values())
    if not values:
        return NONE if one.done else "failed"
    mean = statistics.fmean(values)
    form = ".1f" if abs(mean) >= 10 else ".3g"
    return f"{mean:{form}}" + (f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else "")


def difference(found: Comparison | None, unit: str) -> str:
    """The mean difference, with its 95 % interval where there is one; points have two decimals."""
    if found is None or found.mean is None:
        return NONE
    values = (found.mean, *(found.interval or ()))
    like = max(map(abs, values))
    if unit == "points" and 0.1 < like < 1000:
        mean, *ends = (f"{x:+.2f}" for x in values)
    else:
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

"""Figures that no verdict is about, as no primary one is declared: a sentence that says so."""

from collections.abc import Iterator

from gradsurgery.compare.choice import Line, metric_of
from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.grouped import Trained
from gradsurgery.compare.statistics import pair, t_interval
from gradsurgery.compare.statistics.words import bounds, number


def only_judged(judged: str, others: list[str]) -> str:
    """That figures are left out of the verdicts, and what to declare.

    >>> only_judged("cls", ["reg"])
    'Only cls is judged; reg is not (declare @task(primary=...))'
    """
    *more, last = others
    which = f"{', '.join(more)} and {last} are" if more else f"{last} is"
    return f"Only {judged} is judged; {which} not (declare @task(primary=...))"


def unjudged_sentence(conclusion: Conclusion) -> str | None:
    """Which figures are not judged, and those of them whose paired interval excludes 0.

    None where a primary figure is declared, or all figures are judged.
    """
    primary = conclusion.primary
    row = next((one.done[0] for one in conclusion.trained if one.only is None and one.done), None)
    if primary is None or primary.declared or row is None:
        return None
    others = [name for name in row["test"] if name not in primary.objectives]
    if not others:
        return None
    said = only_judged(primary.name, others) + "."
    baseline = next((name for name in conclusion.families if name not in conclusion.without), None)
    base = next((one for one in conclusion.trained if one.strategy == baseline), None)
    if base is None:
        return said
    parts = []
    for name in others:
        if found := list(_apart(conclusion, base, name, row)):
            better = metric_of(row, name).better
            which = name if better is None else f"{name}, {better} is better"
            parts.append(f"{', '.join(found)} ({which})")
    if parts:
        said += f" Paired 95 % intervals against {baseline} exclude 0, without a verdict: "
        said += f"{'; '.join(parts)}."
    return said


def _apart(conclusion: Conclusion, base: Trained, name: str, row: Line) -> Iterator[str]:
    """The strategies whose interval in a figure excludes 0, with the mean and the interval."""
    metric = metric_of(row, name)
    unit = "points" if metric.unit == "%" else metric.unit
    for one in conclusion.trained:
        if one.only is not None or one is base or not one.done:
            continue
        pairs = pair(one.figures(name), base.figures(name))
        if pairs.n < 2 or not pairs.varies:  # a spread of zero is no estimate of a spread
            continue
        low, high = map(float, t_interval(pairs.differences))
        if low * high > 0:
            mean = number((low + high) / 2, unit, sign=True, like=max(abs(low), abs(high)))
            yield f"{conclusion.names.of(one.strategy)} {mean} [{bounds(low, high)}]"

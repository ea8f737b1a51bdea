"""Verdicts in plain sentences, written from the rows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.methods import ALONE
from gradsurgery.compare.names import short_names
from gradsurgery.compare.statistics import Comparison, Family, mean_ranks
from gradsurgery.compare.statistics.words import bounds, number, plain, seeds
from gradsurgery.compare.unjudged import unjudged_sentence

TUNING = {
    "tuned": "every strategy at its tuned learning rate",
    "chosen": "every strategy at the best of the given learning rates on validation data",
}

WITH_INTERVALS = 4  # strategies of one verdict, in a sentence that can still be read
GIVEN = "The intervals take each learning rate as given: the chance in its choice is not in them."


def verdict_sentences(conclusion: Conclusion) -> list[str]:
    """What was compared, a sentence per baseline, and what could not be seen."""
    said = [heading(conclusion)]
    reasons: dict[str, list[str]] = {}
    for baseline, family in conclusion.families.items():
        if baseline not in conclusion.without:
            said.append(against(conclusion, baseline, family))
    if (others := unjudged_sentence(conclusion)) is not None:
        said.append(others)
    for baseline, why in conclusion.without.items():
        reasons.setdefault(why, []).append(baseline)
    for why, baselines in reasons.items():
        said.append(f"No verdict against {_and(baselines)}: {why}.")
    judged = [x for x in conclusion.families if x not in conclusion.without]
    if judged:
        said.append(conclusion.families[judged[0]].footer)
    if judged and conclusion.tuning in TUNING:
        said.append(GIVEN)
    if (legend := conclusion.names.legend) is not None:
        said.append(legend)
    return said


def heading(conclusion: Conclusion) -> str:
    """The task, its figure, the seeds and the learning rates."""
    primary = conclusion.primary
    if primary is None:
        return f"{conclusion.task}: every run failed."
    return f"{conclusion.task}: {primary.said}; {seeds(conclusion.seeds)}; {tuning(conclusion)}."


def tuning(conclusion: Conclusion) -> str:
    """How the learning rates came about."""
    if conclusion.tuning in TUNING:
        return TUNING[conclusion.tuning]
    rates = sorted({one.lr for one in conclusion.trained if one.kind == "run"})
    return f"untuned, every strategy at learning rate {', '.join(f'{lr:.3g}' for lr in rates)}"


def rate_sentences(conclusion: Conclusion) -> list[str]:
    """By which rule learning rates were chosen, and which choices are at an edge of the search."""
    choices = conclusion.choices
    # each loss alone has a figure of its own, and so a rule
    rules = [c["rule"] for name, c in choices.items() if not name.startswith(ALONE)]
    said = [f"Learning rates: {rule}." for rule in dict.fromkeys(rules)]
    for side in ("low", "high"):
        named = {conclusion.names.of(name): c for name, c in choices.items()}
        if names := [name for name, c in named.items() if c.get("edge") == side]:
            which = "lowest" if side == "low" else "highest"
            said.append(
                f"Edge: the best rate of {_and(names)} is the {which} that was tried; a better one "
                "may lie beyond."
            )
    return said


def against(conclusion: Conclusion, baseline: str, family: Family) -> str:
    """The verdicts against one baseline, as one sentence."""
    by_verdict: dict[str, list[Comparison]] = {}
    for x in family.comparisons:
        named = replace(x, strategy=conclusion.names.of(x.strategy))
        by_verdict.setdefault(x.verdict, []).append(named)
    primary = conclusion.primary
    assert primary is not None
    unit, parts = primary.unit, []
    what = "" if unit else f" in {primary.metric.name}"
    limit = None if family.delta is None else plain(family.delta, unit) + what
    if better := by_verdict.get("better"):
        parts.append(_measured(better, unit, "better"))
    else:
        parts.append("no strategy is better")
    if worse := by_verdict.get("worse"):
        parts.append(_measured(worse, unit, "worse"))
    if same := by_verdict.get("equivalent"):
        parts.append(f"{_named(same)} equivalent (a difference below {limit})")
    if identical := by_verdict.get("identical"):
        parts.append(f"{_named(identical)} identical")
    if undecided := by_verdict.get("undecided", []):
        parts.append(f"{_named(undecided)} undecided{_needed(undecided, limit)}")
    start = f"Untuned, against {baseline}" if conclusion.tuning == "untuned" else None
    said = f"{start or f'Against {baseline}'}: {'; '.join(parts)}."
    apart = [x.strategy for x in undecided if x.interval and x.interval[0] * x.interval[1] > 0]
    if apart:  # else a reader takes the interval for a verdict
        many = "The interval" if len(apart) == 1 else "The intervals"
        verb = "excludes" if len(apart) == 1 else "exclude"
        said += f" {many} of {_and(apart)} {verb} 0, but not after Holm over "
        said += f"{len(family.comparisons)}."
    return said


def rank_sentence(conclusions: Mapping[str, Conclusion]) -> str | None:
    """Mean ranks over the tasks, as a description; None with fewer than two tasks."""
    figures: dict[str, dict[str, float]] = {}
    better = {}
    for task, conclusion in conclusions.items():
        primary = conclusion.primary
        if primary is None or primary.metric.better is None:
            continue
        better[task] = primary.metric.better
        for one in conclusion.trained:
            if one.only is None and one.done:
                values = list(primary.of(one).values())
                figures.setdefault(one.strategy, {})[task] = sum(values) / len(values)
    whole = {label: row for label, row in figures.items() if set(row) == set(better)}
    if len(better) < 2 or len(whole) < 2:
        return None
    ranks = sorted(mean_ranks(whole, better).mean.items(), key=lambda item: item[1])
    names = short_names(whole)
    listed = ", ".join(f"{names.of(label)} {rank:.1f}" for label, rank in ranks)
    return f"Mean rank over {len(better)} tasks, a description and no test: {listed}."


def _measured(found: Sequence[Comparison], unit: str, verdict: str) -> str:
    verb = "is" if len(found) == 1 else "are"
    each = []
    for x in found:
        assert x.mean is not None
        assert x.interval is not None
        numbers = number(x.mean, unit, sign=True, like=max(map(abs, x.interval)))
        if len(found) <= WITH_INTERVALS:  # else the table has them
            numbers += f", 95 % interval {bounds(*x.interval)}"
        each.append(f"{_quoted(x.strategy)} ({numbers})")
    return f"{_listed(each)} {verb} {verdict}"


def _named(found: Sequence[Comparison]) -> str:
    return f"{_and([x.strategy for x in found])} {'is' if len(found) == 1 else 'are'}"


def _needed(found: Sequence[Comparison], delta: str | None) -> str:
    """The seeds that it would take, where they are known."""
    counts = sorted({x.seeds_needed for x in found if x.seeds_needed is not None})
    if not counts:
        return ""
    span = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f" ({span} seeds would see {delta or 'so large a difference'})"


def _and(names: Iterable[str]) -> str:
    return _listed([_quoted(name) for name in names])


def _quoted(name: str) -> str:
    """In quotes where it has a comma that is not within brackets: "mgda, length=sum"."""
    return f'"{name}"' if re.search(r", (?![^(]*\))", name) else name


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"

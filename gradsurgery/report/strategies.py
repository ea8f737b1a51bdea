"""The table of a task: a row per strategy, baselines first, then by the difference to `sum`."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradsurgery.compare.choice import Line, guessed, metric_of
from gradsurgery.compare.columns import form_of, written
from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.grouped import BASELINES, Trained
from gradsurgery.compare.primary import Primary
from gradsurgery.compare.statistics import Family
from gradsurgery.compare.statistics.words import probability
from gradsurgery.compare.verdict_table import NONE, difference, usual, verdict
from gradsurgery.report.drawing import strip
from gradsurgery.report.table import Cell, Row, Table

Times = Mapping[str, Any]
Forms = Mapping[str, str]  # objective -> how its figures are written


def strategy_table(conclusion: Conclusion, times: Times) -> Table:
    """The table of a task.

    Args:
        conclusion: of its rows.
        times: label -> step time, with quartiles; empty where none were taken.
    """
    first = next((one.done[0] for one in conclusion.trained if one.done), None)
    objectives = [] if first is None else list(first["test"])
    headings = [Cell("strategy")]
    primary = conclusion.primary
    if primary is not None:
        if primary.objectives != (primary.name,):
            headings.append(Cell(primary.name, note=primary.metric.label))
        for baseline in conclusion.families:
            unit = f"{primary.unit}, " if primary.unit else ""
            headings.append(Cell(f"Δ to {baseline}", note=f"{unit}95 % interval"))
            headings.append(Cell("verdict", note=f"against {baseline}"))
    for objective in objectives:
        assert first is not None
        metric = metric_of(first, objective)
        low = ", lower is better" if metric.higher is False else ""
        headings.append(Cell(objective, note=metric.label + low))
    if conclusion.gains:
        headings.append(Cell("Δm", note="%, higher is better"))
    headings += [Cell("lr"), Cell("step time", note="x of sum, quartiles")]
    headings += [Cell("conflict", note="% of steps"), Cell("cosine", note="mean"), Cell("failed")]
    forms = _forms(conclusion, objectives)
    rows = [
        _row(one, conclusion, objectives, times, forms)
        for one in sorted(conclusion.trained, key=lambda one: _place(one, conclusion))
    ]
    return Table(tuple(headings), tuple(rows), _notes(conclusion))


def named(label: str, conclusion: Conclusion, note: str = "") -> Cell:
    """The cell with a strategy's name; where that is a short one, its label is the hint."""
    name = conclusion.names.of(label)
    return Cell(name, name, note, hint="" if name == label else label)


def is_baseline(one: Trained) -> bool:
    """Whether it is there to be compared with."""
    return one.kind != "run" or one.strategy in BASELINES


def _place(one: Trained, conclusion: Conclusion) -> tuple[Any, ...]:
    """Baselines by name, controls, single losses; then the others by their gain."""
    if one.strategy in BASELINES:
        return (0, BASELINES.index(one.strategy))
    if one.kind != "run":
        return (1, ("control", "alone").index(one.kind))
    primary = conclusion.primary
    if primary is None or not one.done:
        return (3, 0.0)
    sign = -1 if primary.metric.higher is not False else 1
    return (2, sign * statistics.fmean(primary.of(one).values()))


def _row(
    one: Trained, conclusion: Conclusion, objectives: Sequence[str], times: Times, forms: Forms
) -> Row:
    primary = conclusion.primary
    note = "" if one.only is None else f"trained on {', '.join(one.only)} alone"
    cells = [named(one.strategy, conclusion, note)]
    if primary is not None:
        if primary.objectives != (primary.name,):
            cells.append(_mean(primary.of(one).values(), forms[primary.name]))
        for baseline, family in conclusion.families.items():
            cells += _against(one, conclusion, primary, baseline, family)
    for objective in objectives:
        low = bool(one.done) and one.only is None and guessed(one.done, objective)
        values = one.figures(objective).values()
        cell = _mean(values, forms[objective], "a guess" * low)
        cells.append(Cell(NONE) if one.done and not values else cell)
    if conclusion.gains:
        cells.append(_gain(one, conclusion))
    cells += [_rate(one, conclusion), _cost(one, times)]
    conflicts = [100 * x for line in one.done for x in line.get("conflict_rate", {}).values()]
    cosines = [x for line in one.done for x in line.get("mean_cosine", {}).values()]
    cells.append(_plain(conflicts, ".0f"))
    cells.append(_plain(cosines, "+.2f"))
    failures = sum("error" in line for line in one.rows)
    mark = "warning" if failures else ""
    cells.append(Cell(f"{failures}/{len(one.rows)}", failures, mark=mark))
    return Row(tuple(cells), is_baseline(one))


def _against(
    one: Trained, conclusion: Conclusion, primary: Primary, baseline: str, family: Family
) -> list[Cell]:
    found = conclusion.against(baseline, one.strategy)
    word = verdict(conclusion, baseline, one)
    if found is None or found.mean is None:
        return [Cell(NONE), Cell(word, word, mark="baseline" if word == "baseline" else "")]
    drawn = ""
    if baseline == next(iter(conclusion.families)):  # one column of drawings is enough
        reach = [x for c in family.comparisons for x in c.interval or (c.mean or 0.0,)]
        most = max(map(abs, [*reach, family.delta or 0.0]))
        drawn = strip(found.mean, found.interval, most, family.delta, found.verdict)
    beside = ""
    if found.corrected is not None:
        low, high = found.corrected
        beside = f"new data [{low:+.3g}, {high:+.3g}]"
    needed = f"{found.seeds_needed} seeds would tell" if found.seeds_needed else ""
    tested = found.verdict in ("better", "worse", "undecided") and found.interval is not None
    chance = probability(found.adjusted) if tested else ""
    return [
        Cell(
            difference(found, primary.unit, usual(family.comparisons)),
            found.mean,
            beside,
            drawing=drawn,
        ),
        Cell(word, word, needed or chance, mark=word),
    ]


def _forms(conclusion: Conclusion, objectives: Sequence[str]) -> dict[str, str]:
    """Objective -> how its column is written; the primary figure where it is none of them."""
    primary, trained = conclusion.primary, conclusion.trained
    found = {
        objective: form_of(x for one in trained for x in one.figures(objective).values())
        for objective in objectives
    }
    if primary is not None and primary.name not in found:
        found[primary.name] = form_of(x for one in trained for x in primary.of(one).values())
    return found


def _mean(values: Iterable[float], form: str, note: str = "") -> Cell:
    given = list(values)
    if not given:
        return Cell("failed", None, mark="warning")
    mean = statistics.fmean(given)
    spread = f" ± {written(statistics.stdev(given), form)}" if len(given) > 1 else ""
    return Cell(f"{written(mean, form)}{spread}", mean, note, mark="warning" if note else "")


def _gain(one: Trained, conclusion: Conclusion) -> Cell:
    gains = conclusion.gains.get(one.strategy)
    if gains is None or gains.mean is None:
        return Cell(NONE)
    low, high = gains.interval or (None, None)
    note = "" if low is None else f"[{low:+.1f}, {high:+.1f}]"
    return Cell(f"{gains.mean:+.1f}", gains.mean, note)


def _rate(one: Trained, conclusion: Conclusion) -> Cell:
    choice: Line = conclusion.choices.get(one.strategy, {})
    shares = {float(lr): share for lr, share in (choice.get("frequency") or {}).items()}
    share = shares.get(one.lr)
    note = "" if share is None else f"chosen in {100 * share:.0f} %"
    if (edge := choice.get("edge")) is not None:
        note += f"{', ' if note else ''}at the {edge} edge"
    return Cell(f"{one.lr:.3g}", one.lr, note, mark="warning" if edge is not None else "")


def _cost(one: Trained, times: Times) -> Cell:
    own, base = times.get(one.strategy, {}), times.get(BASELINES[0], {}).get("median")
    if "median" not in own or not base:
        return Cell(NONE)
    ratio = own["median"] / base
    low, high = (own.get(name) for name in ("low", "high"))
    note = f"{low / base:.2f} to {high / base:.2f}" if low and high else ""
    return Cell(f"{ratio:.2f}", ratio, note)


def _plain(values: Sequence[float], form: str) -> Cell:
    if not values:
        return Cell(NONE)
    return Cell(f"{statistics.fmean(values):{form}}", statistics.fmean(values))


def _notes(conclusion: Conclusion) -> tuple[str, ...]:
    notes = ["Figures are means ± sample standard deviations over seeds, of test data."]
    if conclusion.tuning == "untuned":
        notes.append("Untuned: all strategies at one learning rate, which favours some of them.")
    if conclusion.gains:
        notes.append(
            "Δm is the mean relative gain over the runs of the same seed that train one objective "
            "alone; higher is better. It says little where such a figure is near 0."
        )
    if any(one.kind != "run" for one in conclusion.trained):
        notes.append(
            "Grey rows are baselines: sum, scaled-sum, and what was not asked for by name."
        )
    return tuple(notes)

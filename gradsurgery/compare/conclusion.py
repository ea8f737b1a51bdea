"""What the rows of a comparison say of each strategy against `sum` and `scaled-sum`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradsurgery import InputError
from gradsurgery.compare.choice import Line, metric_of
from gradsurgery.compare.grouped import BASELINES, Trained, prepared, trained
from gradsurgery.compare.names import Names, short_names
from gradsurgery.compare.primary import Primary, primary_of
from gradsurgery.compare.results import Results
from gradsurgery.compare.statistics import Comparison, Family, Gains, delta_m, judge


@dataclass(frozen=True)
class Conclusion:
    """What the rows of one task say.

    Attributes:
        task: its name.
        trained: the strategies, in the order of the rows.
        primary: the figure that verdicts are about; None where every run failed.
        families: baseline -> the verdicts against it.
        without: baseline -> why there is no verdict against it.
        gains: strategy -> Δm over the runs that train one objective alone, where there are such.
        choices: strategy -> the line that says how its learning rate was chosen.
        tuning: "tuned", "chosen" (of several rates, on the reported seeds) or "untuned".
    """

    task: str
    trained: tuple[Trained, ...]
    primary: Primary | None
    families: Mapping[str, Family] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    gains: Mapping[str, Gains] = field(default_factory=dict)
    choices: Mapping[str, Line] = field(default_factory=dict)
    tuning: str = "untuned"

    @property
    def seeds(self) -> int:
        """The number of seeds of the strategy that has most."""
        return max((len({row["seed"] for row in one.done}) for one in self.trained), default=0)

    @property
    def names(self) -> Names:
        """What tables and sentences call the strategies."""
        return short_names(one.strategy for one in self.trained)

    def against(self, baseline: str, strategy: str) -> Comparison | None:
        """The comparison of a strategy with a baseline; None where there is none."""
        family = self.families.get(baseline)
        found = family.comparisons if family is not None else ()
        return next((x for x in found if x.strategy == strategy), None)


def conclude(lines: "Iterable[Line] | Results") -> dict[str, Conclusion]:
    """Per task, the verdicts on its primary figure against `sum` and against `scaled-sum`.

    The family of a baseline is all other strategies of the task. Runs on a part of the losses are
    in it where the primary figure is among those losses. `gradsurgery.compare.statistics.judge`
    has the rules.

    Args:
        lines: of a results file, as `read_results` gives them; or what `compare` returned.

    Raises:
        InputError: for what are no lines of results.
    """
    lines = prepared(lines)
    setup: dict[str, Any] = {}
    for line in lines:
        if line["kind"] == "setup" and isinstance(line.get("tasks"), Mapping):
            setup |= line["tasks"]
    choices: dict[str, dict[str, Line]] = {}
    for line in lines:
        if line["kind"] == "choice":
            choices.setdefault(line["task"], {})[line["strategy"]] = line
    return {
        task: _conclusion(task, found, setup.get(task, {}), choices.get(task, {}))
        for task, found in trained(lines).items()
    }


def _conclusion(
    task: str, found: Sequence[Trained], declared: Mapping[str, Any], choices: Mapping[str, Line]
) -> Conclusion:
    primary = primary_of(found, declared)
    tuning = _tuning(found, choices)
    if primary is None:
        why = dict.fromkeys(BASELINES, "every run failed")
        return Conclusion(task, tuple(found), None, without=why, choices=choices, tuning=tuning)
    families, without = {}, {}
    losses = {name for one in found for name in one.only or ()}
    judged = [one for one in found if _comparable(one, primary, losses)]
    figures = {one.strategy: primary.of(one) for one in judged}
    for baseline in BASELINES:
        better = primary.metric.better
        if baseline not in figures:
            without[baseline] = f"{baseline} was not run; add it to the strategies"
        elif not figures[baseline]:
            without[baseline] = f"every run of {baseline} failed"
        elif better is None:
            without[baseline] = (
                "the task does not say whether its figures are better higher or lower "
                "(Problem(better=...))"
            )
        elif len(figures) == 1:
            without[baseline] = "no other strategy was run"
        else:
            family = judge(
                figures,
                baseline,
                better=better,
                unit=primary.unit,
                delta=primary.delta,
                ratio=primary.ratio,
            )
            families[baseline] = family
            if all(x.pairs.n < 2 for x in family.comparisons):
                without[baseline] = "an interval needs at least 2 seeds that both have finished"
    gains = _gains(found)
    return Conclusion(task, tuple(found), primary, families, without, gains, choices, tuning)


def _comparable(one: Trained, primary: Primary, losses: set[str]) -> bool:
    """Whether it was trained on what is judged; a figure of no loss is the whole model's."""
    if one.only is None:
        return True
    about = set(primary.objectives) & losses
    return about <= set(one.only) and bool(primary.of(one))


def _tuning(found: Sequence[Trained], choices: Mapping[str, Line]) -> str:
    if found and all(one.strategy in choices for one in found if one.kind == "run"):
        return "tuned" if choices else "untuned"
    return "chosen" if any(len(one.rates) > 1 for one in found) else "untuned"


def _gains(found: Sequence[Trained]) -> dict[str, Gains]:
    """Δm of the strategies that train all losses, where objectives were trained alone."""
    kept: dict[str, Trained] = {}
    for one in found:
        if one.only is None or len(one.only) != 1 or not one.done:
            continue
        figures = one.done[0]["test"]
        names = (one.only[0], one.strategy.partition(": ")[2])  # of the loss, or of the entry
        if (name := next((x for x in names if figures.get(x) is not None), None)) is not None:
            kept.setdefault(name, one)
    if not kept:
        return {}
    better = {name: metric_of(one.done[0], name).better for name, one in kept.items()}
    known = {name: word for name, word in better.items() if word is not None}
    gains = {}
    for one in found:
        if one.only is not None or not one.done:
            continue
        try:
            gains[one.strategy] = delta_m(
                {name: one.figures(name) for name in known},
                {name: kept[name].figures(name) for name in known},
                known,
            )
        except InputError:  # a figure of 0 alone, to which nothing is relative
            return {}
    return gains

"""The learning rate that a strategy is reported at, and which figures are mere guesses."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gradsurgery.tasks import ACCURACY, Metric
from gradsurgery.tasks.metric import described

Line = dict[str, Any]


def best_rate(by_lr: Mapping[float, list[Line]]) -> float:
    """The learning rate with the best validation figures, of those at which the fewest runs failed.

    Where the task declares a primary figure, that one decides. Otherwise figures of one kind are
    averaged over seeds and objectives. Where they have no common unit, or some are better higher
    and some lower, the mean of the rates' places per objective decides. Where the task says
    nothing, the smallest sum of the validation losses does.
    """
    done = {lr: [line for line in lines if "validation" in line] for lr, lines in by_lr.items()}
    failed = {lr: len(lines) - len(done[lr]) for lr, lines in by_lr.items()}
    rates = [lr for lr in by_lr if failed[lr] == min(failed.values()) and done[lr]]
    if not rates:  # every run failed
        return next(iter(by_lr))
    first = done[rates[0]][0]
    better = directions(first)
    if better is None:
        return min(rates, key=lambda lr: statistics.fmean(map(_loss, done[lr])))
    there = {name for name, value in first["validation"].items() if value is not None}
    better = {name: word for name, word in better.items() if name in there}
    if not better or len(rates) == 1:
        return rates[0]
    if (primary := first.get("primary")) in better:
        better = {primary: better[primary]}
    kinds = {(word, metric_of(first, objective).label) for objective, word in better.items()}
    worth: dict[float, list[float]] = {lr: [] for lr in rates}
    for objective, word in better.items():
        sign = 1 if word == "higher" else -1
        means = [
            sign * statistics.fmean(line["validation"][objective] for line in done[lr])
            for lr in rates
        ]
        if len(kinds) > 1:
            means = [-sum(other > mean for other in means) for mean in means]
        for lr, mean in zip(rates, means, strict=True):
            worth[lr].append(mean)
    return max(rates, key=lambda lr: statistics.fmean(worth[lr]))


def _loss(line: Line) -> float:
    loss = line.get("validation_loss")
    return math.inf if loss is None else float(loss)


def directions(line: Line) -> dict[str, str] | None:
    """Objective -> "higher" or "lower"; None where the task says nothing.

    Files of earlier versions do not have it: their figures are accuracies.
    """
    if "better" not in line:
        return dict.fromkeys(line["test"], "higher")
    better: dict[str, str] | None = line["better"]
    return better


def metric_of(line: Line, objective: str) -> Metric:
    """What a figure of a run is.

    The short cut says it once for all objectives, in the keys that files of earlier versions have.
    """
    if line.get("chance") is None and objective in line.get("metrics", {}):
        said = dict(line["metrics"][objective])
        return Metric(said.pop("name"), **said)
    word = (directions(line) or {}).get(objective)
    higher = None if word is None else word == "higher"
    return described(line.get("figure", ACCURACY), higher, line.get("chance"))


def guessed(lines: Sequence[Line], objective: str) -> bool:
    """Whether the figures of some runs are no better than a guesser's.

    An accuracy counts as such within three standard errors of the share of right guesses, in any
    run. Of other figures, or where the number of examples is not known, the spread is not known:
    their mean decides. Without a direction or a guess none does.
    """
    metric, examples = metric_of(lines[0], objective), lines[0].get("test_examples")
    figures = [line["test"][objective] for line in lines]
    if metric.higher is None or metric.chance is None:
        return False
    chance = metric.chance
    if metric.label != ACCURACY or examples is None:
        mean = statistics.fmean(figures)
        return bool(mean <= chance if metric.higher else mean >= chance)
    if not metric.higher:
        return bool(max(figures) >= chance)
    share = chance / 100
    variance = share * (1 - share) / max(1, examples) if 0 <= share <= 1 else 0.0
    return bool(min(figures) <= chance + 300 * math.sqrt(variance))

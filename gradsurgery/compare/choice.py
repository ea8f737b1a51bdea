"""The learning rate that a strategy is reported at, and which figures are mere guesses."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gradsurgery.tasks import ACCURACY

Line = dict[str, Any]


def best_rate(by_lr: Mapping[float, list[Line]]) -> float:
    """The learning rate with the best validation figures, of those at which the fewest runs failed.

    Figures whose better direction is the same are averaged over seeds and objectives. Where some
    are better higher and some lower, they have no common unit, and the mean of the rates' places
    per objective decides. Where the task says nothing, the smallest sum of the validation losses
    does.
    """
    done = {lr: [line for line in lines if "validation" in line] for lr, lines in by_lr.items()}
    failed = {lr: len(lines) - len(done[lr]) for lr, lines in by_lr.items()}
    rates = [lr for lr in by_lr if failed[lr] == min(failed.values()) and done[lr]]
    if not rates:  # every run failed
        return next(iter(by_lr))
    better = directions(done[rates[0]][0])
    if better is None:
        return min(rates, key=lambda lr: statistics.fmean(map(_loss, done[lr])))
    worth: dict[float, list[float]] = {lr: [] for lr in rates}
    for objective, word in better.items():
        sign = 1 if word == "higher" else -1
        means = [
            sign * statistics.fmean(line["validation"][objective] for line in done[lr])
            for lr in rates
        ]
        if len(set(better.values())) > 1:
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


def guessed(lines: Sequence[Line], objective: str) -> bool:
    """Whether the figures of some runs are no better than a guesser's.

    An accuracy counts as such within three standard errors of the share of right guesses, in any
    run. Of other figures the spread is not known: their mean decides. Without a direction none
    does.
    """
    direction, chance = (directions(lines[0]) or {}).get(objective), lines[0]["chance"]
    figures = [line["test"][objective] for line in lines]
    if direction is None:
        return False
    if lines[0].get("figure", ACCURACY) != ACCURACY:
        mean = statistics.fmean(figures)
        return bool(mean >= chance if direction == "lower" else mean <= chance)
    if direction == "lower":
        return bool(max(figures) >= chance)
    share = chance / 100
    variance = share * (1 - share) / max(1, lines[0]["test_examples"]) if 0 <= share <= 1 else 0.0
    return bool(min(figures) <= chance + 300 * math.sqrt(variance))

"""Which of several learning rates a strategy is reported at, and what counts as no better than guessing."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

Line = dict[str, Any]


def best_rate(by_lr: Mapping[float, list[Line]]) -> float:
    """The learning rate with the best validation figures, among those at which the fewest runs failed.

    Figures whose better direction is the same are averaged over seeds and objectives. Where some are better higher
    and some lower, they have no common unit: the mean of the rates' places per objective decides. Where the task
    says nothing about the direction, the smallest sum of the validation losses does.
    """
    if len(by_lr) == 1:
        return next(iter(by_lr))
    failed = {lr: sum("validation" not in line for line in lines) for lr, lines in by_lr.items()}
    least = min(failed.values())
    done = {lr: [line for line in lines if "validation" in line] for lr, lines in by_lr.items() if failed[lr] == least}
    if not all(done.values()):  # every run failed
        return next(iter(by_lr))
    first = next(iter(done.values()))[0]
    better = directions(first)
    if better is None:
        losses = {lr: statistics.fmean(map(_loss, lines)) for lr, lines in done.items()}
        return min(losses, key=lambda lr: losses[lr])
    means = {o: {lr: statistics.fmean(line["validation"][o] for line in lines) for lr, lines in done.items()} for o in better}
    upward = {o: {lr: mean if better[o] == "higher" else -mean for lr, mean in by.items()} for o, by in means.items()}
    if len(set(better.values())) > 1:
        upward = {o: {lr: -sum(other > mean for other in by.values()) for lr, mean in by.items()} for o, by in upward.items()}
    return max(done, key=lambda lr: statistics.fmean(by[lr] for by in upward.values()))


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


def guessed(line: Line, objective: str) -> bool:
    """Whether a figure is no better than a guesser's; a percentage gets three standard errors of a share."""
    figure, chance = line["test"][objective], line["chance"]
    if (directions(line) or {}).get(objective) == "lower":
        return bool(figure >= chance)
    share = chance / 100
    error = 100 * float(np.sqrt(share * (1 - share) / line["test_examples"])) if 0 <= share <= 1 else 0.0
    return bool(figure <= chance + 3 * error)

"""Step times: all strategies take turns on the same batches, under the same load of the machine."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gradsurgery import Strategy
from gradsurgery.compare.loop import BATCHES, Loop, endless, seeded
from gradsurgery.tasks import Problem

WARM_UP = 3
ROUNDS = 24


def step_times(
    problem: Problem,
    strategies: Mapping[str, Strategy],
    *,
    lr: float,
    on_round: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """The median time of a training step per strategy, in seconds.

    A step is forward pass, losses, surgery and optimizer; nothing is inspected.

    Args:
        problem: the task with its data.
        strategies: label -> strategy.
        lr: the learning rate.
        on_round: called after every round, in which each strategy took one step.

    Returns:
        label -> {"median", "low", "high" (quartiles, seconds), "rounds"}; {"error": ...} for one
        that failed.
    """
    times: dict[str, list[float]] = {label: [] for label in strategies}
    errors: dict[str, str] = {}
    with seeded(0):
        loops = {}
        for label, strategy in strategies.items():
            torch.manual_seed(0)
            try:
                loops[label] = Loop(problem, strategy, seed=0, lr=lr, steps=WARM_UP + ROUNDS)
            except Exception as error:
                errors[label] = f"{type(error).__name__}: {error}"
        draw = endless(problem)
        several = any("cross" in strategy.inputs for strategy in strategies.values())
        for turn in range(WARM_UP + ROUNDS):
            try:
                given = [draw() for _ in range(BATCHES if several else 1)]
            except Exception as error:  # the runs will say so too
                errors = dict.fromkeys(strategies, f"{type(error).__name__}: {error}")
                break
            order = random.Random(turn).sample(sorted(loops), len(loops))  # another each round
            for label in order:
                begin = time.perf_counter()
                try:
                    loops[label].step(iter(given).__next__)
                except Exception as error:
                    errors[label] = f"{type(error).__name__}: {error}"
                    del loops[label]
                    continue
                if turn >= WARM_UP:
                    times[label].append(time.perf_counter() - begin)
            on_round()
    return {
        label: {"error": errors[label]} if label in errors else _quartiles(times[label])
        for label in strategies
    }


def _quartiles(seconds: list[float]) -> dict[str, Any]:
    low, median, high = statistics.quantiles(seconds, n=4)
    return {"median": median, "low": low, "high": high, "rounds": len(seconds)}

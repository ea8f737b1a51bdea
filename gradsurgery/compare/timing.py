"""Step times: all strategies take turns on the same batches, under the same load of the machine."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gradsurgery import Strategy, Surgery
from gradsurgery.compare.train import batches
from gradsurgery.tasks import Problem

WARM_UP = 3
ROUNDS = 24


def step_times(
    problem: Problem,
    strategies: Mapping[str, Strategy],
    *,
    lr: float,
    batch: int,
    on_round: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """The median time of a training step per strategy, in seconds.

    A step is forward pass, losses, surgery and optimizer; nothing is inspected.

    Args:
        problem: the task with its data.
        strategies: label -> strategy.
        lr: the learning rate.
        batch: examples per step.
        on_round: called after every round, in which each strategy took one step.

    Returns:
        label -> {"median", "low", "high" (quartiles, seconds), "rounds"}; {"error": ...} for one
        that failed.
    """
    times: dict[str, list[float]] = {label: [] for label in strategies}
    errors: dict[str, str] = {}
    with torch.random.fork_rng(devices=[]):
        loops = {}
        for label, strategy in strategies.items():
            torch.manual_seed(0)
            model = problem.model()
            loops[label] = (
                model,
                problem.optimizer(model.parameters(), lr),
                Surgery(strategy, model),
            )
        for turn, examples in zip(
            range(WARM_UP + ROUNDS), batches(problem.train, batch, 0), strict=False
        ):
            order = random.Random(turn).sample(sorted(loops), len(loops))  # another each round
            for label in order:
                model, optimizer, surgery = loops[label]
                begin = time.perf_counter()
                try:
                    losses = problem.losses(model, examples)
                    optimizer.zero_grad()
                    surgery.backward(losses)
                    optimizer.step()
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

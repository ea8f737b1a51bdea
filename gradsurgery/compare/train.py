"""One training run: a plain PyTorch loop with `Surgery.backward` in it, and an inspection now and then."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from gradsurgery import Strategy, Surgery, inspect
from gradsurgery.tasks import Batch, Problem

INSPECTIONS = 24  # per run
EVALUATE = 512  # examples at once


def batches(train: Batch, size: int, seed: int) -> Iterator[Batch]:
    """Batches without end, in an order that follows from the seed alone; what does not fill a batch is left out."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(train[0]))
    while True:
        order = torch.randperm(len(train[0]), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield tuple(tensor[rows] for tensor in train)


def train(problem: Problem, strategy: Strategy, *, seed: int, lr: float, epochs: int, batch: int, on_step: Callable[[int, int, float], None]) -> dict[str, Any]:
    """Train one model and report on it.

    Args:
        problem: the task with its data.
        strategy: what combines the gradients.
        seed: of the model's weights, of the order, and of a randomised strategy.
        lr: the learning rate.
        epochs: passes over the training data.
        batch: examples a step.
        on_step: called with (step, steps, sum of the losses) after each.

    Returns:
        steps, seconds, "validation" and "test" as objective -> accuracy in percent, and "conflict_rate": group -> the
        share of inspected steps at which two of its objectives had a negative cosine;
        "mean_cosine": group -> the mean over those steps and the pairs of its objectives.
    """
    steps = epochs * max(1, len(problem.train[0]) // batch)
    look_every = max(1, steps // INSPECTIONS)
    conflicts: dict[str, list[bool]] = {}
    cosines: dict[str, list[float]] = {}
    begin = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = problem.model()
        optimizer = problem.optimizer(model.parameters(), lr)
        surgery = Surgery(strategy, model, seed=seed)
        for step, examples in zip(range(steps), batches(problem.train, batch, seed), strict=False):
            losses = problem.losses(model, examples)
            if step % look_every == 0:
                for name, group in inspect(losses, model).items():
                    if group.mean_cosine is not None:
                        conflicts.setdefault(name, []).append(bool(group.conflicts))
                        cosines.setdefault(name, []).append(group.mean_cosine)
            optimizer.zero_grad()
            record = surgery.backward(losses)
            optimizer.step()
            on_step(step + 1, steps, sum(record.losses.values()))
        seconds = time.perf_counter() - begin
        return {
            "steps": steps,
            "seconds": seconds,
            "validation": evaluate(problem, model, problem.validation),
            "test": evaluate(problem, model, problem.test),
            "conflict_rate": {name: sum(seen) / len(seen) for name, seen in conflicts.items()},
            "mean_cosine": {name: sum(found) / len(found) for name, found in cosines.items()},
        }


@torch.no_grad()
def evaluate(problem: Problem, model: nn.Module, examples: Batch) -> dict[str, float]:
    """The metrics over all examples, some at a time, weighted by their number; the model is left in training mode."""
    model.eval()
    total: dict[str, float] = {}
    count = len(examples[0])
    for start in range(0, count, EVALUATE):
        piece = tuple(tensor[start : start + EVALUATE] for tensor in examples)
        for name, value in problem.metrics(model, piece).items():
            total[name] = total.get(name, 0.0) + value * len(piece[0]) / count
    model.train()
    return total

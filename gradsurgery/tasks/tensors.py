"""The short cut: tensors with a row per example, brought into the protocol of tasks."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery.errors import InputError
from gradsurgery.tasks.problem import Batch, Problem


def in_protocol(problem: Problem, *, epochs: int | None, batch: int, seed: int) -> Problem:
    """The problem with `batches`, `evaluate` and `steps` that follow from its tensors.

    Args:
        problem: in the form of the short cut.
        epochs: passes over the training data; None where steps are counted.
        batch: examples per step.
        seed: of the order of the examples.
    """

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        return figures(problem, model, getattr(problem, split), split)

    steps = None if epochs is None else epochs * max(1, len(problem.train[0]) // batch)
    return replace(
        problem,
        batches=lambda: batches(problem.train, batch, seed),
        evaluate=evaluate,
        steps=problem.steps or steps,
        validation_loss=lambda model: total_loss(problem, model),
    )


def batches(train: Batch, size: int, seed: int) -> Iterator[Batch]:
    """Batches without end, in an order that follows from the seed alone.

    What does not fill a batch at the end of an epoch is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(train[0]))
    while True:
        order = torch.randperm(len(train[0]), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield tuple(tensor[rows] for tensor in train)


def figures(problem: Problem, model: nn.Module, examples: Batch, part: str) -> dict[str, float]:
    """The metrics over all examples, in one call.

    Where the task says how many at once, as a mean over parts.

    Raises:
        InputError: for no figures, or other names than an earlier part has.
    """
    total: dict[str, float] = {}
    count = len(examples[0])
    size = problem.at_once or count
    for start in range(0, max(count, 1), max(size, 1)):
        piece = tuple(tensor[start : start + size] for tensor in examples)
        share = len(piece[0]) / count if size < count else 1.0
        found = problem.metrics(model, piece)
        check_names(found, total, part)
        for name, value in found.items():
            figure = float(value.detach() if isinstance(value, Tensor) else value)
            total[name] = total.get(name, 0.0) + figure * share
    return total


def check_names(found: Any, before: Collection[str], part: str) -> None:
    """Hold that figures have names, and those that were there before.

    Raises:
        InputError: where they do not.
    """
    if not isinstance(found, Mapping) or not found:
        raise InputError(
            f"metrics gave {found!r} on the {part} data: "
            "return a figure by name for every objective."
        )
    if before and set(found) != set(before):
        now, then = (", ".join(map(repr, names)) for names in (found, before))
        raise InputError(
            f"metrics gave the figures of {now} on the {part} data, and of {then} before: "
            "return the same names in every call."
        )


def total_loss(problem: Problem, model: nn.Module) -> float | None:
    """The sum of the losses on all validation data, or None where it is not finite.

    Gradients stay on, since a loss may use them.
    """
    model.eval()
    total = sum(loss.detach().item() for loss in problem.losses(model, problem.validation).values())
    model.train()
    return total if math.isfinite(total) else None

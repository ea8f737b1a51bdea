"""One training run: a plain PyTorch loop with `Surgery.backward`, inspected now and then."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from gradsurgery import InputError, NonFiniteError, Strategy, Surgery, inspect
from gradsurgery.tasks import Batch, Problem

INSPECTIONS = 24  # per run


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


def train(
    problem: Problem,
    strategy: Strategy,
    *,
    seed: int,
    lr: float,
    epochs: int,
    batch: int,
    on_step: Callable[[int, int, float], None],
    losses_too: bool = False,
    names: Collection[str] = (),
) -> dict[str, Any]:
    """Train one model and report on it.

    Args:
        problem: the task with its data.
        strategy: what combines the gradients.
        seed: of the model's weights, of the order, and of a randomised strategy.
        lr: the learning rate.
        epochs: passes over the training data.
        batch: examples per step.
        on_step: called with (step, steps, sum of the losses) after each.
        losses_too: whether learning rates are to be chosen from.
        names: those that the figures of an earlier run had, if there was one.

    Returns:
        "steps" and "seconds"; "validation" and "test": objective -> figure; "better" and "figure":
        what these figures are. "conflict_rate": group -> the share of inspected steps at which two
        of its objectives had a negative cosine. "mean_cosine": group -> the mean over those steps
        and the pairs of its objectives. "validation_loss": the sum of the losses, or None where it
        is not finite. It is there only where rates are to be chosen from and the task does not say
        which figures are better.

    Raises:
        NonFiniteError: for a figure that is NaN or infinite: the run has no result then.
        InputError: for figures that have other names than those before.
    """
    steps = epochs * max(1, len(problem.train[0]) // batch)
    inspect_every = max(1, steps // INSPECTIONS)
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
            if step % inspect_every == 0:
                for name, group in inspect(losses, model).items():
                    if group.mean_cosine is not None:
                        conflicts.setdefault(name, []).append(bool(group.conflicts))
                        cosines.setdefault(name, []).append(group.mean_cosine)
            optimizer.zero_grad()
            record = surgery.backward(losses)
            optimizer.step()
            on_step(step + 1, steps, sum(record.losses.values()))
        seconds = time.perf_counter() - begin
        validation = evaluate(problem, model, problem.validation, "validation", names)
        better = problem.better_of(validation)
        undecided = losses_too and better is None
        return {
            "steps": steps,
            "seconds": seconds,
            "validation": validation,
            "test": evaluate(problem, model, problem.test, "test", validation),
            "better": better,
            "figure": problem.figure,
            **({"validation_loss": _total(problem, model)} if undecided else {}),
            "conflict_rate": {name: sum(seen) / len(seen) for name, seen in conflicts.items()},
            "mean_cosine": {name: sum(found) / len(found) for name, found in cosines.items()},
        }


@torch.no_grad()
def evaluate(
    problem: Problem, model: nn.Module, examples: Batch, part: str, names: Collection[str] = ()
) -> dict[str, float]:
    """The metrics over all examples, in one call.

    Where the task says how many at once, as a mean over parts. The model is left in training mode.

    Raises:
        NonFiniteError: for a figure that is NaN or infinite.
        InputError: for no figures, or other names than `names` or an earlier part has.
    """
    model.eval()
    total: dict[str, float] = {}
    count = len(examples[0])
    size = problem.at_once or count
    for start in range(0, max(count, 1), max(size, 1)):
        piece = tuple(tensor[start : start + size] for tensor in examples)
        share = len(piece[0]) / count if size < count else 1.0
        figures = problem.metrics(model, piece)
        _check_names(figures, total or names, part)
        for name, value in figures.items():
            figure = float(value.detach() if isinstance(value, torch.Tensor) else value)
            total[name] = total.get(name, 0.0) + figure * share
    model.train()
    for name, value in total.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"the figure of {name!r} on the {part} data is {value}.")
    return total


def _check_names(figures: Any, before: Collection[str], part: str) -> None:
    if not isinstance(figures, Mapping) or not figures:
        raise InputError(
            f"metrics gave {figures!r} on the {part} data: "
            "return a figure by name for every objective."
        )
    if before and set(figures) != set(before):
        now, then = (", ".join(map(repr, names)) for names in (figures, before))
        raise InputError(
            f"metrics gave the figures of {now} on the {part} data, and of {then} before: "
            "return the same names in every call."
        )


def _total(problem: Problem, model: nn.Module) -> float | None:
    """The sum of the losses on all validation data, or None where it is not finite.

    Gradients stay on, since a loss may use them.
    """
    model.eval()
    total = sum(loss.detach().item() for loss in problem.losses(model, problem.validation).values())
    model.train()
    return total if math.isfinite(total) else None

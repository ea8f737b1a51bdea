"""One training run: a plain PyTorch loop with `Surgery.backward`, inspected now and then."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gradsurgery import Strategy
from gradsurgery.compare.along import Along
from gradsurgery.compare.figures import Kept, evaluate, trained
from gradsurgery.compare.loop import Loop, endless, seeded, some_of
from gradsurgery.compare.methods import Guard
from gradsurgery.compare.optimizers import optimizer_of
from gradsurgery.compare.trace import Trace
from gradsurgery.tasks import Problem
from gradsurgery.tasks.metric import Metric, common_label
from gradsurgery.tasks.tensors import total_loss

INSPECTIONS = 24  # per run


def train(
    problem: Problem,
    strategy: Strategy,
    *,
    seed: int,
    lr: float,
    on_step: Callable[[int, int, float], None],
    losses_too: bool = False,
    names: Collection[str] = (),
    only: Sequence[str] | None = None,
    subset: str | None = None,
    optimizer: str | None = None,
    settings: Mapping[str, Any] | None = None,
    guard: Guard = "off",
    test: bool = True,
    evaluations: int = 0,
) -> dict[str, Any]:
    """Train one model and report on it.

    Args:
        problem: the task with its data, in the protocol.
        strategy: what combines the gradients.
        seed: of the model's weights, of the order, and of a randomised strategy.
        lr: the learning rate.
        on_step: called with (step, steps, sum of the losses) after each.
        losses_too: whether learning rates are to be chosen from.
        names: those that the figures of an earlier run had, if there was one.
        only: the losses to train on; None is all of them. Figures of heads that are not trained
            are None then.
        subset: what the task calls these losses.
        optimizer: by its name, "sgd" or "adam"; None is the task's own.
        settings: of `Surgery`.
        guard: of `Surgery.step`; "off" is `backward` and the optimizer's step.
        test: whether there are test figures; None stands for them otherwise.
        evaluations: how often validation figures are taken along the run, at most once per step;
            not for a run on some of the losses.

    Returns:
        "steps" and "seconds"; "validation" and "test": objective -> figure; "metrics", and for
        the short cut "better" and "figure" too: what these figures are. "conflict_rate": group ->
        the share of inspected steps at which two of its objectives had a negative cosine.
        "mean_cosine": group -> the mean over those steps and the pairs of its objectives.
        "trace": group -> both at each inspected step. With `evaluations` "along":
        validation figures, with the steps and seconds until then.
        "validation_loss": the sum of the losses, or None where it is not finite. It is there only
        where rates are to be chosen from and the task does not say which figures are better.

    Raises:
        NonFiniteError: for a figure that is NaN or infinite: the run has no result then.
        InputError: for figures that have other names than those before.
    """
    problem = replace(problem, optimizer=optimizer_of(optimizer, problem.optimizer))
    steps = problem.steps
    assert steps is not None  # Task.problem sees to it
    inspect_every = max(1, steps // INSPECTIONS)
    trace = Trace()
    along = Along(problem, evaluations if only is None else 0, steps, names)
    apart = 0.0  # seconds that are no training

    begin = time.perf_counter()
    with seeded(seed):
        loop = Loop(
            problem,
            strategy,
            seed=seed,
            lr=lr,
            steps=steps,
            only=only,
            settings=settings,
            guard=guard,
        )
        draw = endless(problem)
        for step in range(steps):
            record = loop.step(
                draw, partial(trace.add, step) if step % inspect_every == 0 else None
            )
            on_step(step + 1, steps, sum(record.losses.values()))
            if along.due(step + 1):
                spent = time.perf_counter()
                along.take(step + 1, spent - begin - apart, loop.model)
                apart += time.perf_counter() - spent
        seconds = time.perf_counter() - begin - apart
        kept: Kept = tuple
        if only is not None:
            all_names = {*loop.losses, *(problem.alone or {})}
            kept = trained({*only, *filter(None, [subset])}, all_names)
        validation = evaluate(problem, loop.model, "validation", names, kept)
        metrics = {name: problem.metric_of(name) for name in validation}
        measured = problem.validation_loss
        if measured is not None and only is not None:
            measured = partial(total_loss, some_of(problem, only))
        undecided = losses_too and measured is not None and _directions(metrics) is None
        return {
            "steps": steps,
            "seconds": seconds,
            "validation": validation,
            "test": evaluate(problem, loop.model, "test", validation, kept) if test else None,
            "metrics": {name: metric.as_dict() for name, metric in metrics.items()},
            "better": _directions(metrics),
            "figure": common_label(metrics) or "figure",
            **({"validation_loss": measured(loop.model)} if undecided and measured else {}),
            "conflict_rate": trace.conflict_rate,
            "mean_cosine": trace.mean_cosine,
            **({"trace": trace.as_dict()} if test else {}),
            **along.as_dict(steps, seconds, validation),
        }


def _directions(metrics: Mapping[str, Metric]) -> dict[str, str] | None:
    """The direction of each figure, or None where of one nothing is known."""
    words = {name: metric.better for name, metric in metrics.items()}
    return None if None in words.values() else {name: str(word) for name, word in words.items()}

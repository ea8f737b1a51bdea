"""`gradsurgery compare --check`: three steps of each task, what is wrong, and how long it takes."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradsurgery import InputError, Record
from gradsurgery.compare.baselines import methods_of
from gradsurgery.compare.figures import evaluate
from gradsurgery.compare.jobs import runs_of
from gradsurgery.compare.loop import Loop, endless, missing, seeded
from gradsurgery.compare.methods import Method, control
from gradsurgery.compare.plan import BASELINE, Plan
from gradsurgery.compare.primary import judged_of, unknown_primary
from gradsurgery.compare.unjudged import only_judged
from gradsurgery.compare.where import place_of
from gradsurgery.tasks import Problem, Task

STEPS = 3


@dataclass
class Checked:
    """What three steps of a task have shown.

    Attributes:
        task: its name.
        wrong: what has to be mended, a sentence each.
        notes: what to know besides.
        groups: the parameter groups, by the losses that reach them.
        seconds: what the plan takes on this task, with one process; None where it cannot run.
        longest: the same where every search of a rate is widened as far as it goes.
        runs: how many runs that are.
        widened: how many where every search is widened as far as it goes.
    """

    task: str
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    seconds: float | None = None
    longest: float = 0.0
    runs: int = 0
    widened: int = 0


def check_task(plan: Plan, task: Task) -> Checked:
    """Take three steps of a task with every strategy of the plan, and say what is wrong with it."""
    found = Checked(task.name)
    try:
        problem = _problem(plan, task, plan.seeds[0])
        first = _trial(problem, control(BASELINE), plan, task)
        again = _trial(_problem(plan, task, plan.seeds[0]), control(BASELINE), plan, task)
    except Exception as error:
        found.wrong.append(_error(error))
        return found
    found.groups = first.groups
    found.wrong += first.wrong
    if first.numbers != again.numbers:
        found.wrong.append(
            "the same seed gives different numbers: everything random (split, noise, order) "
            "has to follow from the seed, or from torch's random numbers."
        )
    found.wrong += _equal_splits(problem, first)
    found.wrong += _unknown_names(problem, task, first)
    if not any("+" in name for name in first.groups):
        found.wrong.append(
            "no parameter is reached by two losses: there is nothing for a strategy to combine. "
            f"The groups are {', '.join(map(repr, first.groups)) or 'none'}."
        )
    try:
        found.notes += _unjudged(problem, task, first)
    except InputError as error:  # a figure without a direction, where others have one
        found.wrong.append(str(error))
    found.notes += _seeds(plan, task, first)
    _count(plan, task, problem, found)
    return found


def _error(error: Exception) -> str:
    """An error in words, and where in the user's code it was raised."""
    where = place_of(error)
    return f"{type(error).__name__}: {error}" + ("" if where is None else f" ({where})")


@dataclass
class _Trial:
    numbers: list[Any]
    groups: list[str]
    losses: list[str]
    figures: dict[str, dict[str, float | None]]
    wrong: list[str]
    step: float
    evaluation: float


def _problem(plan: Plan, task: Task, seed: int) -> Problem:
    return task.problem(plan.data_root, seed, epochs=plan.epochs, steps=plan.steps)


def _trial(problem: Problem, method: Method, plan: Plan, task: Task) -> _Trial:
    """Three steps and the figures of both splits; what goes wrong in the figures is kept."""
    made = _Trial([], [], [], {}, [], math.inf, 0.0)
    with seeded(plan.seeds[0]):
        loop = Loop(
            problem,
            method.strategy,
            seed=plan.seeds[0],
            lr=plan.middle(task),
            steps=problem.steps or STEPS,
            only=method.only,
            settings=method.settings,
            guard=method.guard,
        )
        draw = endless(problem)

        def see(record: Record) -> None:
            made.groups[:] = list(record)
            made.losses[:] = list(record.losses)

        for step in range(STEPS):
            begin = time.perf_counter()
            record = loop.step(draw, see if step == 0 else None)
            if step > 0:
                made.step = min(made.step, time.perf_counter() - begin)
            made.numbers.append(dict(record.losses))
        for split in ("validation", "test"):
            begin = time.perf_counter()
            try:
                made.figures[split] = evaluate(problem, loop.model, split)
            except Exception as error:
                made.wrong.append(_error(error))
            made.evaluation += time.perf_counter() - begin
        made.numbers.append(made.figures)
    return made


def _equal_splits(problem: Problem, trial: _Trial) -> Iterator[str]:
    splits = {name: getattr(problem, name) for name in ("train", "validation", "test")}
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    for one, other in pairs:
        a, b = splits[one], splits[other]
        if a and b and len(a) == len(b) and all(map(torch.equal, a, b)):
            yield f"{one} and {other} are the same data."
    figures = trial.figures
    if not problem.test and len(figures) == 2 and figures["validation"] == figures["test"]:
        yield "validation and test have the same figures, all of them: are they the same data?"


def _unknown_names(problem: Problem, task: Task, trial: _Trial) -> Iterator[str]:
    names = problem.names or tuple(next(iter(trial.figures.values()), ()))
    if (wrong := unknown_primary(task.primary, names)) is not None:
        yield wrong
    for name, losses in (problem.alone or {}).items():
        for loss in losses:
            if loss not in trial.losses:
                yield (
                    f"alone={{{name!r}: ...}} names the loss {loss!r}; the task has "
                    f"{', '.join(map(repr, trial.losses))}."
                )


def _unjudged(problem: Problem, task: Task, trial: _Trial) -> Iterator[str]:
    """What verdicts would leave out, as figures of several kinds have no mean."""
    names = tuple(trial.figures.get("test", ()))
    if task.primary is not None or len(names) < 2:
        return
    judged = judged_of({name: problem.metric_of(name) for name in names})
    if others := [name for name in names if name not in judged]:
        yield f"{only_judged(judged[0], others)}."


def _seeds(plan: Plan, task: Task, trial: _Trial) -> Iterator[str]:
    if not task.seeded:
        yield "every seed has the same data: write (data_root, seed) to vary split and noise too."
    elif len(plan.seeds) > 1:
        with seeded(plan.seeds[0]):  # the same weights: what differs are the data
            other = _trial(_problem(plan, task, plan.seeds[1]), control(BASELINE), plan, task)
        if other.numbers[:STEPS] == trial.numbers[:STEPS]:
            yield f"the seeds {plan.seeds[0]} and {plan.seeds[1]} give the same batches."


def _count(plan: Plan, task: Task, problem: Problem, found: Checked) -> None:
    """How many runs the plan has and what they take, from the faster of two steps of each."""
    steps, each = problem.steps or 0, 0.0
    low, high = runs_of(plan)
    for method in methods_of(plan, task, problem):
        found.runs += low
        found.widened += high
        lacking = missing(method.strategy, problem)
        try:
            if lacking is None:
                trial = _trial(problem, method, plan, task)
                each += steps * trial.step + trial.evaluation
        except Exception as error:
            lacking = _error(error)
        if lacking is not None:
            found.wrong.append(f"{method.label} cannot run: {lacking}")
    found.seconds, found.longest = low * each, high * each


def said(found: Checked, plan: Plan, jobs: int = 1) -> list[str]:
    """What was found, as lines for a person.

    Args:
        found: by `check_task`.
        plan: that it was checked for.
        jobs: the processes that would train, each on a core of its own.
    """
    lines = [f"{found.task}: {'nothing is wrong' if not found.wrong else 'to be mended'}"]
    lines += [f"  wrong: {one}" for one in found.wrong]
    lines += [f"  note: {one}" for one in found.notes]
    if found.groups:
        lines.append(f"  groups: {', '.join(found.groups)}")
    if found.seconds is not None:
        count = str(found.runs)
        if found.widened > found.runs:
            count += f" to {found.widened}"
        lines.append(f"  the plan: {count} runs, about {_span(found, 1)} in one process")
        if jobs > 1:
            lines.append(
                f"    with --jobs {jobs} about {_span(found, jobs)}, if each has a core of its own"
            )
    return lines


def _span(found: Checked, jobs: int) -> str:
    least, most = (duration(x / jobs) for x in (found.seconds or 0.0, found.longest))
    return least if least == most else f"{least} to {most}"


def duration(seconds: float) -> str:
    """A time as one would say it.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def check_in_terminal(plan: Plan, jobs: int = 1) -> int:
    """Check the tasks of a plan and print what was found; the exit status is 1 if all is not well.

    Args:
        plan: what would be compared.
        jobs: the processes that would train.

    Raises:
        MissingExtraError: when the data need an extra that is not installed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        checked: Mapping[str, Checked] = {task.name: check_task(plan, task) for task in plan.tasks}
    finally:
        torch.set_num_threads(before)
    for found in checked.values():
        print("\n".join(said(found, plan, jobs)))
    return 1 if any(found.wrong for found in checked.values()) else 0

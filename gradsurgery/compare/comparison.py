"""The comparison itself: time the steps, train every run, write each result as it is known."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from gradsurgery import InputError, get_strategy
from gradsurgery.compare.plan import BASELINE, Plan, Run
from gradsurgery.compare.results import Results, as_path, setup_line
from gradsurgery.compare.timing import ROUNDS, WARM_UP, step_times
from gradsurgery.compare.train import train
from gradsurgery.tasks import Problem, Task


class Listener(Protocol):
    """What is told how far a comparison is."""

    def timing(self, task: str, rounds: int) -> None:
        """The step times of a task are taken next, in so many rounds."""

    def timed(self) -> None:
        """One of those rounds is done."""

    def started(self, run: Run) -> None:
        """A run begins."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """It took a step."""

    def finished(self, run: Run, line: dict[str, Any]) -> None:
        """It ended, and its line is in the file."""


class Silence:
    """A listener that says nothing."""

    def timing(self, task: str, rounds: int) -> None:
        """Say nothing."""

    def timed(self) -> None:
        """Say nothing."""

    def started(self, run: Run) -> None:
        """Say nothing."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def finished(self, run: Run, line: dict[str, Any]) -> None:
        """Say nothing."""


def compare(
    plan: Plan,
    out: Path | str,
    listener: Listener | None = None,
    on_open: Callable[[Results], None] | None = None,
) -> Results:
    """Run a comparison; a run that fails is written down as such, and the others go on.

    Args:
        plan: what to compare.
        out: the folder for `results.jsonl`; it may not hold results yet.
        listener: told about the progress.
        on_open: given the `Results` before anything is in them, so that what there is can be had
            after an interruption.

    Returns:
        The `Results`; `summarise` makes the tables of them.

    Raises:
        InputError: for a folder that cannot be used, before any training. And for a line that
            cannot be written, on a full disk for example; the lines before it are kept.
        MissingExtraError: when the data need an extra that is not installed.

    Example:
        >>> from gradsurgery.compare import Plan, compare, summarise
        >>> plan = Plan.of(["multimnist"], ["sum"], [0], epochs=1)
        >>> results = compare(plan, "results")  # doctest: +SKIP
    """
    if not isinstance(plan, Plan):
        got = type(plan).__name__
        raise InputError(
            f"compare: expected a Plan, then the folder; got {got}. Plan.of(...) makes one."
        )
    listener = Silence() if listener is None else listener
    folder = as_path("compare", out)
    problems = {task.name: _loaded(task, plan) for task in plan.tasks}
    with Results(folder) as results, _threads(plan.threads):
        if on_open is not None:
            on_open(results)
        results.add(setup_line(plan))
        for task in plan.tasks:
            listener.timing(task.name, WARM_UP + ROUNDS)
            timed = {BASELINE: get_strategy(BASELINE), **plan.strategies}
            times = step_times(
                problems[task.name],
                timed,
                lr=(plan.lrs or (task.lr,))[0],
                batch=task.batch,
                on_round=listener.timed,
            )
            results.add({"kind": "timing", "task": task.name, "baseline": BASELINE, "times": times})
        names: dict[str, Collection[str]] = {}
        for run in plan.runs():
            listener.started(run)
            line = _line(plan, run, problems[run.task], listener, names.get(run.task, ()))
            if "test" in line:
                names.setdefault(run.task, tuple(line["test"]))
            results.add(line)
            listener.finished(run, line)
    return results


def _loaded(task: Task, plan: Plan) -> Problem:
    problem: Any = task.load(plan.data_root)
    if not isinstance(problem, Problem):
        got = type(problem).__name__
        raise InputError(f"task {task.name!r} returned {got}: return a gradsurgery.tasks.Problem.")
    if not problem.train or not len(problem.train[0]):
        advice = "give tensors with one row per example, at least one"
        raise InputError(f"task {task.name!r}: its training data (train=) have no rows; {advice}.")
    return problem


def _line(
    plan: Plan, run: Run, problem: Problem, listener: Listener, names: Collection[str]
) -> dict[str, Any]:
    """Train one run: its figures, or why there are none."""
    batch = {task.name: task.batch for task in plan.tasks}[run.task]
    line: dict[str, Any] = {"kind": "run", **vars(run)}
    line |= {"chance": problem.chance, "test_examples": len(problem.test[0])}
    try:
        line |= train(
            problem,
            plan.strategies[run.strategy],
            seed=run.seed,
            lr=run.lr,
            epochs=run.epochs,
            batch=batch,
            on_step=listener.stepped,
            losses_too=len(plan.lrs) > 1,
            names=names,
        )
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {error}"
    return line


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many of torch's threads within; as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

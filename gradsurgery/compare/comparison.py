"""The comparison itself: time the steps, train every run, write each result as it is known."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from gradsurgery import InputError, get_strategy
from gradsurgery.compare.plan import BASELINE, Plan, Run
from gradsurgery.compare.results import Results, as_path, setup_line
from gradsurgery.compare.timing import ROUNDS, WARM_UP, step_times
from gradsurgery.compare.train import train
from gradsurgery.tasks import Problem


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
    problems = Problems(plan)
    for task in plan.tasks:  # what is wrong with the data is said before the folder is made
        problems.get(task.name, plan.seeds[0])
    with Results(folder) as results, _threads(plan.threads):
        if on_open is not None:
            on_open(results)
        results.add(setup_line(plan))
        for task in plan.tasks:
            listener.timing(task.name, WARM_UP + ROUNDS)
            timed = {BASELINE: get_strategy(BASELINE), **plan.strategies}
            times = step_times(
                problems.get(task.name, plan.seeds[0]),
                timed,
                lr=(plan.lrs or (task.lr,))[0],
                on_round=listener.timed,
            )
            results.add({"kind": "timing", "task": task.name, "baseline": BASELINE, "times": times})
        names: dict[str, Collection[str]] = {}
        for run in plan.runs():
            listener.started(run)
            line = _line(plan, run, problems, listener, names.get(run.task, ()))
            if "test" in line:
                names.setdefault(run.task, tuple(line["test"]))
            results.add(line)
            listener.finished(run, line)
    return results


class Problems:
    """The problems of a plan, loaded as they are asked for; one per task is kept.

    Args:
        plan: the runs of which seed follow each other.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tasks = {task.name: task for task in plan.tasks}
        self._kept: dict[str, tuple[int, Problem]] = {}
        self._data: dict[str, Problem] = {}

    def get(self, name: str, seed: int) -> Problem:
        """The problem of this task and seed, in the protocol.

        Raises:
            InputError: for a task that has none.
        """
        if name in self._kept and self._kept[name][0] == seed:
            return self._kept[name][1]
        task, plan = self._tasks[name], self._plan
        self._kept.pop(name, None)  # the memory of the one before, first
        if not task.seeded and name not in self._data:
            self._data[name] = task.data(plan.data_root, seed)
        problem = task.problem(
            plan.data_root,
            seed,
            epochs=plan.epochs,
            steps=plan.steps,
            data=self._data.get(name),
        )
        self._kept[name] = seed, problem
        return problem


class Seen:
    """How far a run is: its last step, and the last sum of losses that was finite."""

    def __init__(self, on_step: Callable[[int, int, float], None]) -> None:
        self.step = 0
        self.loss: float | None = None
        self._on_step = on_step

    def __call__(self, step: int, steps: int, loss: float) -> None:
        """Remember a step and pass it on."""
        self.step, self.loss = step, loss if math.isfinite(loss) else self.loss
        self._on_step(step, steps, loss)


def _line(
    plan: Plan, run: Run, problems: Problems, listener: Listener, names: Collection[str]
) -> dict[str, Any]:
    """Train one run: its figures, or why there are none, and how far it came."""
    line: dict[str, Any] = {"kind": "run", **vars(run)}
    seen = Seen(listener.stepped)
    primaries = {task.name: task.primary for task in plan.tasks}
    try:
        problem = problems.get(run.task, run.seed)
        line["chance"] = problem.chance
        if primaries[run.task] is not None:
            line["primary"] = primaries[run.task]
        line["test_examples"] = len(problem.test[0]) if problem.test else None
        line |= train(
            problem,
            plan.strategies[run.strategy],
            seed=run.seed,
            lr=run.lr,
            on_step=seen,
            losses_too=len(plan.lrs) > 1,
            names=names,
        )
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {error}"
        line["failed_at"] = {"step": seen.step + 1, "last_loss": seen.loss}
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

"""A task: a function that makes a problem from the data and a seed, under a name."""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from gradsurgery.errors import InputError, UnknownNameError, one_of
from gradsurgery.tasks.plugins import load_plugins
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.tensors import in_protocol

F = TypeVar("F", bound=Callable[..., Any])
_tasks: dict[str, "Task"] = {}


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes:
        name: what `gradsurgery compare --tasks` takes.
        load: (data_root, seed) -> a `Problem`. The folder is None where none was given. A function
            of the folder alone has the same data for every seed.
        epochs: passes over the training data by default; None where `steps` says how long.
        batch: examples per step, for the short cut; None otherwise.
        lr: the default learning rate: the geometric middle of `lr_range`.
        paper: its source.
        steps: of a run; None where `epochs` says how long.
        lr_range: where tuning begins, (low, high).
        primary: the name of the figure that verdicts are about; None where none was declared.
        delta: the difference of the primary figure below which two strategies count as equivalent;
            None where none was declared.
        ratio: of the interval for new data, where the seeds re-split one pool of data; None
            otherwise.
    """

    name: str
    load: Callable[..., Problem]
    epochs: int | None
    batch: int | None
    lr: float
    paper: str
    steps: int | None = None
    lr_range: tuple[float, float] = (0.0, 0.0)
    primary: str | None = None
    delta: float | None = None
    ratio: float | None = None

    @property
    def description(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.load) or ""

    @property
    def seeded(self) -> bool:
        """Whether its data follow from a seed: whether the function takes one."""
        named = inspect.signature(self.load).parameters.values()
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        places = [p for p in named if p.kind in by_place]
        return len(places) > 1 or any(p.name == "seed" for p in named)

    def data(self, data_root: Path | None, seed: int) -> Problem:
        """What the function returns for this seed.

        Raises:
            InputError: for no `Problem`, or one without data.
        """
        problem: Any
        if not self.seeded:
            problem = self.load(data_root)
        elif "seed" in inspect.signature(self.load).parameters:
            problem = self.load(data_root, seed=seed)
        else:
            problem = self.load(data_root, seed)
        if not isinstance(problem, Problem):
            got = type(problem).__name__
            raise InputError(
                f"task {self.name!r} returned {got}: return a gradsurgery.tasks.Problem."
            )
        if problem.batches is None and (not problem.train or not len(problem.train[0])):
            advice = "give tensors with one row per example, at least one"
            raise InputError(
                f"task {self.name!r}: its training data (train=) have no rows; {advice}."
            )
        return problem

    def problem(
        self,
        data_root: Path | None = None,
        seed: int = 0,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        data: Problem | None = None,
    ) -> Problem:
        """The problem of a seed in the protocol, whatever form the task gives it in.

        Args:
            data_root: the folder with the data; None for what needs none.
            seed: of the split, the noise and the order.
            epochs: passes over the training data; None is the task's own number.
            steps: of a run, before `epochs` and what the task says.
            data: what `data` returned, where that is the same for every seed.

        Raises:
            InputError: for what is no problem, or one that does not say how long a run is.
        """
        found = self.data(data_root, seed) if data is None else data
        if found.batches is None:
            if self.batch is None:
                raise InputError(
                    f"task {self.name!r}: its data are tensors (train=); say how they are cut: "
                    "@task(..., epochs=6, batch=64), or give batches= and evaluate=."
                )
            found = in_protocol(found, epochs=epochs or self.epochs, batch=self.batch, seed=seed)
        wanted = steps or found.steps or self.steps
        if wanted is None:
            raise InputError(f"task {self.name!r}: say how long a run is: @task(..., steps=600).")
        return replace(found, steps=wanted)


def task(
    name: str,
    *,
    lr: float | Sequence[float],
    steps: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    primary: str | None = None,
    delta: float | None = None,
    ratio: float | None = None,
    paper: str = "",
) -> Callable[[F], F]:
    """Register a function `(data_root, seed) -> Problem` as a task.

    Args:
        name: lower case, words joined by hyphens.
        lr: the range of learning rates that tuning begins with, (low, high); without tuning its
            geometric middle is taken. Or one learning rate.
        steps: of a run.
        epochs: passes over the training data, for the short cut with tensors, in place of steps.
        batch: examples per step, for the short cut.
        primary: the name of the figure that verdicts are about.
        delta: the difference of that figure below which two strategies count as equivalent.
        ratio: give it only where the seeds re-split one pool of data: n_test/n_train where each
            seed tests on the rest, m/(N - m) where each trains on m of N examples. An interval for
            new data is then given beside the plain one.
        paper: the source, as one would cite it.

    Raises:
        InputError: for a name that is taken, or numbers that are not positive.

    Example:
        >>> from gradsurgery.tasks import Metric, Problem, get_task, task
        >>> @task("speech", steps=600, lr=(1e-3, 1e-1), primary="fused", delta=1.0)
        ... def speech(data_root, seed):
        ...     return Problem(...)  # see the page on comparisons
        >>> round(get_task("speech").lr, 4)
        0.01
    """
    low, high = _range(name, lr)
    if epochs is not None or batch is not None:
        numbers = (epochs or 0, batch or 0)
        if min(numbers) < 1 or not low > 0:
            raise InputError(
                f"task {name!r}: epochs and batch are at least 1 and lr is positive; "
                f"got {epochs}, {batch}, {low}."
            )
    for what, number in (("steps", steps), ("delta", delta), ("ratio", ratio)):
        if number is not None and not number > 0:
            raise InputError(f"task {name!r}: {what} is positive; got {number!r}.")
    if not 0 < low <= high < math.inf:
        raise InputError(f"task {name!r}: lr is positive, (low, high); got {lr!r}.")
    rate = low if low == high else math.sqrt(low * high)

    def register(function: F) -> F:
        if name in _tasks and _tasks[name].load.__module__ != function.__module__:
            raise InputError(
                f"task {name!r} is already registered by {_tasks[name].load.__module__}."
            )
        _tasks[name] = Task(
            name, function, epochs, batch, rate, paper, steps, (low, high), primary, delta, ratio
        )
        return function

    return register


def _range(name: str, lr: Any) -> tuple[float, float]:
    if isinstance(lr, Real):
        return float(lr), float(lr)
    try:
        low, high = map(float, lr)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"task {name!r}: lr is (low, high), where tuning begins, as in (3e-3, 1e-1); "
            f"got {lr!r}."
        ) from error
    return low, high


def task_names() -> list[str]:
    """Every registered task, by name, sorted; those of installed plugins are among them.

    Example:
        >>> from gradsurgery.tasks import task_names
        >>> {"cg-mnist", "multimnist"} <= set(task_names())
        True
    """
    package = importlib.import_module("gradsurgery.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"gradsurgery.tasks.{module.name}")
    load_plugins()
    return sorted(_tasks)


def get_task(name: str) -> Task:
    """The task of this name, or of `module:function` or `path/to/file.py:function`.

    Modules are found in the current folder too.

    Raises:
        UnknownNameError: for an unknown name, with the nearest match and the list.
        InputError: for a module or a function that is not there, or is no task.

    Example:
        >>> from gradsurgery.tasks import get_task
        >>> get_task("multimnist").batch
        64
    """
    if isinstance(name, str) and (":" in name or name.endswith(".py")):
        from gradsurgery.tasks.own import task_of

        own: Task = task_of(name, _tasks)
        return own
    names = task_names()
    if name not in names:
        raise UnknownNameError(
            one_of("task", str(name), names) + " A task of your own is module:function."
        )
    return _tasks[name]

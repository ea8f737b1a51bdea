"""A task: real data, a model, an optimizer, losses and metrics, under a name."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from gradsurgery.errors import InputError, UnknownNameError, one_of

Batch = tuple[Tensor, ...]
Better = Literal["higher", "lower"]
BETTER = ("higher", "lower")
ACCURACY = "accuracy in %"
MEANT = {"higher": ("max", "maximise", "up"), "lower": ("min", "minimise", "down", "less")}
_tasks: dict[str, "Task"] = {}


@dataclass(frozen=True)
class Problem:
    """A task with its data loaded.

    The data are the same for every seed; what a seed changes is the model and the order.

    Attributes:
        train: tensors with one row per example: what a batch is cut from.
        validation: the same for choosing hyper-parameters.
        test: the same for the figures that are reported, and for nothing else.
        model: makes a fresh model from torch's random numbers.
        optimizer: (parameters, learning rate) -> optimizer.
        losses: (model, batch) -> name -> scalar loss, each an objective.
        metrics: (model, examples) -> objective -> figure; the model is in eval mode. All examples
            of a split are given in one call, unless `at_once` says otherwise.
        chance: the figure of a model that guesses. Where `better` is given, figures no better than
            it are marked: a mean over seeds, or an accuracy within its margin (`figure=ACCURACY`).
        better: whether a "higher" or a "lower" figure is better, for all objectives or by
            objective. None says nothing: of several learning rates the one with the smallest sum
            of the validation losses is taken.
        at_once: examples per call of `metrics`. Give it only where a figure over all examples is
            the mean of those over parts, weighted by their numbers: accuracy is, R² and AUC are
            not.
        figure: what a figure is, in the words of the tables.

    Raises:
        InputError: for a direction or a number of examples that cannot be used.
    """

    train: Batch
    validation: Batch
    test: Batch
    model: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer]
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]]
    metrics: Callable[[nn.Module, Batch], dict[str, float]]
    chance: float
    better: Better | Mapping[str, Better] | None = None
    at_once: int | None = None
    figure: str = "figure"

    def __post_init__(self) -> None:
        given = self.better.values() if isinstance(self.better, Mapping) else (self.better,)
        for word in given:
            if word is not None and word not in BETTER:
                raise InputError(one_of("value of better", str(word), BETTER, MEANT))
        if self.at_once is not None and (not isinstance(self.at_once, int) or self.at_once < 1):
            got = self.at_once
            raise InputError(f"at_once: expected a number of examples, 1 or more; got {got!r}.")

    def better_of(self, objectives: Iterable[str]) -> dict[str, Better] | None:
        """The direction of each objective's figure, or None where the task says nothing.

        Raises:
            InputError: for an objective that a dict of directions leaves out.
        """
        if self.better is None:
            return None
        if not isinstance(self.better, Mapping):
            return dict.fromkeys(objectives, self.better)
        if missing := [o for o in objectives if o not in self.better]:
            names = ", ".join(map(repr, missing))
            raise InputError(f"better: no direction is given for the figure of {names}.")
        return {o: self.better[o] for o in objectives}


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes:
        name: what `gradsurgery compare --tasks` takes.
        load: from the folder with the data (None: the digits of an installed package) to a
            `Problem`.
        epochs: passes over the training data by default.
        batch: examples per step.
        lr: the default learning rate, chosen on validation data.
        paper: its source.
    """

    name: str
    load: Callable[[Path | None], Problem]
    epochs: int
    batch: int
    lr: float
    paper: str

    @property
    def description(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.load) or ""


def task(
    name: str, *, epochs: int, batch: int, lr: float, paper: str
) -> Callable[[Callable[[Path | None], Problem]], Callable[[Path | None], Problem]]:
    """Register a function `(data_root) -> Problem` as a task.

    Args:
        name: lower case, words joined by hyphens.
        epochs: passes over the training data by default.
        batch: examples per step.
        lr: the default learning rate; choose it on validation data.
        paper: the source, as one would cite it.

    Raises:
        InputError: for a name that is taken, or numbers that are not positive.
    """

    def register(function: Callable[[Path | None], Problem]) -> Callable[[Path | None], Problem]:
        if name in _tasks and _tasks[name].load.__module__ != function.__module__:
            raise InputError(
                f"task {name!r} is already registered by {_tasks[name].load.__module__}."
            )
        if epochs < 1 or batch < 1 or not lr > 0:
            raise InputError(
                f"task {name!r}: epochs and batch are at least 1 and lr is positive; "
                f"got {epochs}, {batch}, {lr}."
            )
        _tasks[name] = Task(name, function, epochs, batch, lr, paper)
        return function

    return register


def task_names() -> list[str]:
    """Every registered task, by name, sorted.

    Example:
        >>> from gradsurgery.tasks import task_names
        >>> {"cg-mnist", "multimnist"} <= set(task_names())
        True
    """
    package = importlib.import_module("gradsurgery.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"gradsurgery.tasks.{module.name}")
    return sorted(_tasks)


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        UnknownNameError: for an unknown name, with the nearest match and the list.

    Example:
        >>> from gradsurgery.tasks import get_task
        >>> get_task("multimnist").batch
        64
    """
    names = task_names()
    if name not in names:
        raise UnknownNameError(one_of("task", str(name), names))
    return _tasks[name]

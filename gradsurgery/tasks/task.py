"""A task: real data, a model, an optimizer, losses and metrics, under a name. One function, one file."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from gradsurgery.errors import InputError, UnknownNameError, one_of

Batch = tuple[Tensor, ...]
_tasks: dict[str, "Task"] = {}


@dataclass(frozen=True)
class Problem:
    """A task with its data loaded. The data are the same for every seed; what a seed changes is the model and the order.

    Attributes:
        train: tensors with one row per example: what a batch is cut from.
        validation: the same for choosing hyper-parameters.
        test: the same for the figures that are reported, and for nothing else.
        model: makes a fresh model from torch's random numbers.
        optimizer: (parameters, learning rate) -> optimizer.
        losses: (model, batch) -> name -> scalar loss, each an objective.
        metrics: (model, examples) -> objective -> figure, here accuracy in percent; the model is in eval mode.
        chance: the figure of a model that guesses.
    """

    train: Batch
    validation: Batch
    test: Batch
    model: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer]
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]]
    metrics: Callable[[nn.Module, Batch], dict[str, float]]
    chance: float


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes:
        name: what `gradsurgery compare --tasks` takes.
        load: from the folder with the data (None: the digits of an installed package) to a `Problem`.
        epochs: passes over the training data by default.
        batch: examples a step.
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


def task(name: str, *, epochs: int, batch: int, lr: float, paper: str) -> Callable[[Callable[[Path | None], Problem]], Callable[[Path | None], Problem]]:
    """Register a function `(data_root) -> Problem` as a task.

    Args:
        name: lower case, words joined by hyphens.
        epochs: passes over the training data by default.
        batch: examples a step.
        lr: the default learning rate; choose it on validation data.
        paper: the source, as one would cite it.

    Raises:
        InputError: for a name that is taken, or numbers that are not positive.
    """

    def register(function: Callable[[Path | None], Problem]) -> Callable[[Path | None], Problem]:
        if name in _tasks and _tasks[name].load.__module__ != function.__module__:
            raise InputError(f"task {name!r} is already registered by {_tasks[name].load.__module__}.")
        if epochs < 1 or batch < 1 or not lr > 0:
            raise InputError(f"task {name!r}: epochs and batch are at least 1 and lr is positive; got {epochs}, {batch}, {lr}.")
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

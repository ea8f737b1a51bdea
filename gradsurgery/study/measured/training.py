"""Training as a comparison does it, stopped on the way; and fixed examples of the training data."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradsurgery import get_strategy
from gradsurgery.compare.loop import Draw, Loop, endless, moved, seeded
from gradsurgery.compare.optimizers import optimizer_of
from gradsurgery.tasks import Problem


class Setting(Protocol):
    """What a training needs to know."""

    @property
    def strategy(self) -> str:
        """The label."""

    @property
    def seed(self) -> int:
        """Of weights and order."""

    @property
    def lr(self) -> float:
        """The learning rate."""

    @property
    def optimizer(self) -> str | None:
        """By its name; None is the task's own."""


@contextlib.contextmanager
def begun(setting: Setting, problem: Problem) -> Iterator[tuple[Loop, Draw]]:
    """A training as `compare` begins it, and what gives its batches."""
    own = replace(problem, optimizer=optimizer_of(setting.optimizer, problem.optimizer))
    strategy = get_strategy(setting.strategy)
    assert problem.steps is not None
    with seeded(setting.seed):
        loop = Loop(own, strategy, seed=setting.seed, lr=setting.lr, steps=problem.steps)
        yield loop, endless(own)


def examples(problem: Problem, count: int) -> list[Any]:
    """The first training examples, in one batch where batches are tuples of tensors.

    Otherwise so many batches, of which the sizes are not known, that 64 each would be enough.
    """
    draw = endless(problem)
    first = moved(draw(), problem.device)
    rest = (moved(draw(), problem.device) for _ in itertools.count())
    if not (isinstance(first, tuple | list) and all(isinstance(x, Tensor) for x in first)):
        return [first, *itertools.islice(rest, math.ceil(count / 64) - 1)]
    size = len(first[0])
    batches = [first, *itertools.islice(rest, math.ceil(count / size) - 1)]
    columns = zip(*batches, strict=True)
    return [tuple(torch.cat(list(column))[:count] for column in columns)]


@torch.no_grad()
def total(problem: Problem, model: nn.Module, batches: list[Any]) -> float:
    """The summed losses in eval mode, mean over the batches; the model is left in train mode."""
    return sum(losses(problem, model, batches).values())


def losses(problem: Problem, model: nn.Module, batches: list[Any]) -> dict[str, float]:
    """Each loss in eval mode, mean over the batches; the model is left in train mode."""
    model.eval()
    with torch.no_grad():
        found = [problem.losses(model, batch) for batch in batches]
    model.train()
    return {name: sum(float(one[name]) for one in found) / len(found) for name in found[0]}

"""Validation figures along a run, without a trace in the training."""

import contextlib
import random
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from gradsurgery.compare.figures import evaluate
from gradsurgery.tasks import Problem


class Along:
    """Evaluates a whole split now and then.

    Args:
        problem: in the protocol.
        count: how often, evenly over the run; the last one is the evaluation at its end.
        steps: of the run.
        names: those that other figures had, where the task does not declare them.
    """

    def __init__(
        self, problem: Problem, count: int, steps: int, names: Collection[str] = ()
    ) -> None:
        self._problem, self._names = problem, names
        self._due = {round(steps * k / count) for k in range(1, count)} - {0, steps}
        self._at: list[tuple[int, float, dict[str, float | None]]] = []
        self._asked = count > 0

    def due(self, step: int) -> bool:
        """Whether to evaluate after so many steps."""
        return step in self._due

    def take(self, step: int, seconds: float, model: nn.Module) -> None:
        """Evaluate now; a task that cannot is asked no more, and says so at the end of the run.

        Args:
            step: how many were taken.
            seconds: that they took.
            model: in training; it, and random numbers, are left as they are.
        """
        try:
            with untouched(model, self._problem.device):
                found = evaluate(self._problem, model, "validation", self._names)
        except Exception:  # a figure that is not finite yet, for example
            self._due = set()
            return
        self._at.append((step, seconds, found))

    def as_dict(
        self, steps: int, seconds: float, last: dict[str, float | None]
    ) -> dict[str, dict[str, Any]]:
        """The row's field "along": steps, seconds, and each figure at them; {} where none asked.

        Args:
            steps: of the run.
            seconds: that it took.
            last: the figures at its end.
        """
        if not self._asked:
            return {}
        every = [*self._at, (steps, seconds, last)]
        figures = {name: [found.get(name) for _, _, found in every] for name in last}
        return {
            "along": {
                "steps": [step for step, _, _ in every],
                "seconds": [round(spent, 4) for _, spent, _ in every],
                "validation": figures,
            }
        }


@contextlib.contextmanager
def untouched(model: nn.Module, device: Any = None) -> Iterator[None]:
    """Within it a model is evaluated; modes and random numbers are those of before after it."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    on_gpu = device is not None and torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            random.setstate(python)
            np.random.set_state(numpy)

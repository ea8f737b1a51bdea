"""One cell of a comparison: its key, its training, and the row that says what came of it."""

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from gradsurgery.compare.memory import Peak
from gradsurgery.compare.methods import ALONE, method_of
from gradsurgery.compare.plan import Plan, Run
from gradsurgery.compare.train import train
from gradsurgery.compare.where import place_of
from gradsurgery.tasks import Problem

ROWS = 1  # the version of what a row means: rows of another one are other cells


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


def key_of(plan: Plan, run: Run) -> str:
    """What tells a cell from every other: a hash of all that its figures depend on."""
    strategy = method_of(plan.strategies, run.strategy, run.only).strategy
    options = sorted(strategy.options.items())
    root = None if plan.data_root is None else str(plan.data_root)
    text = json.dumps([ROWS, run.as_dict(), options, root], sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def begun(plan: Plan, run: Run) -> dict[str, Any]:
    """What a row says of its cell before it is trained: what was asked for, and where it runs."""
    return {
        "kind": run.kind,
        **run.as_dict(),
        "key": key_of(plan, run),
        "options": dict(method_of(plan.strategies, run.strategy, run.only).strategy.options),
        "versions": versions(),
        "machine": platform.node(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def run_cell(
    plan: Plan,
    run: Run,
    problems: Problems,
    on_step: Callable[[int, int, float], None],
    names: Collection[str],
) -> dict[str, Any]:
    """Train one cell: its figures, or why there are none, and how far it came."""
    line = begun(plan, run)
    seen = Seen(on_step)
    primary = {task.name: task.primary for task in plan.tasks}[run.task]
    wall, cpu, peak = time.perf_counter(), time.process_time(), Peak()
    device = None
    try:
        problem = problems.get(run.task, run.seed)
        line["chance"], device = problem.chance, problem.device
        if primary is not None:
            line["primary"] = primary
        line["test_examples"] = len(problem.test[0]) if problem.test else None
        method = method_of(plan.strategies, run.strategy, run.only)
        line |= train(
            problem,
            method.strategy,
            seed=run.seed,
            lr=run.lr,
            on_step=seen,
            losses_too=plan.choosing,
            names=names,
            only=run.only,
            subset=None if run.only is None else run.strategy.removeprefix(ALONE),
            optimizer=run.optimizer,
            settings=method.settings,
            guard=method.guard,
            test=run.kind != "tune",
            evaluations=0 if run.kind == "tune" else plan.evaluations,
        )
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {error}"
        line["failed_at"] = {"step": seen.step + 1, "last_loss": seen.loss}
        if (where := place_of(error)) is not None:
            line["failed_at"]["where"] = where
        line["seconds"] = time.perf_counter() - wall
    line["cpu_seconds"] = time.process_time() - cpu
    line["memory"] = peak.as_dict(device)
    if hasattr(os, "getloadavg"):
        line["load"] = os.getloadavg()[0]
    return line


def versions() -> dict[str, str]:
    """Of Python and of the packages that figures depend on."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    with contextlib.suppress(PackageNotFoundError):  # a clone on the path
        found["gradsurgery"] = version("gradsurgery")
    return found

"""The training loop of a task: its hooks around one `Surgery`, and what a strategy needs of it."""

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery import InputError, Record, Strategy, Surgery, get_strategy
from gradsurgery import inspect as measured
from gradsurgery.compare.methods import Guard
from gradsurgery.tasks import Problem

BATCHES = 3  # per step for strategies that compare batches: what modo and sdmgrad take
Draw = Callable[[], Any]


def endless(problem: Problem) -> Draw:
    """A function that gives the next batch; what ends is begun again.

    Raises:
        InputError: when it is called and there are no batches.
    """
    assert problem.batches is not None
    make = problem.batches

    def all_of_them() -> Iterator[Any]:
        while True:
            count = 0
            for count, batch in enumerate(make(), 1):  # noqa: B007
                yield batch
            if count == 0:
                raise InputError("batches() gave no batch: return an iterable with at least one.")

    return all_of_them().__next__


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it the random numbers of torch, numpy and Python follow from the seed.

    The caller's are left as they were.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def buffers_kept(model: torch.nn.Module) -> Iterator[None]:
    """Within it the model may run once more; its buffers, such as running means, stay."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def missing(strategy: Strategy, problem: Problem) -> str | None:
    """What the strategy needs and the task does not have, as a sentence; None if there is all."""
    if "scores" in strategy.inputs and problem.scores is None:
        return (
            f"{strategy.name} takes a measure of each modality, and the task has none: give "
            "Problem(scores=(model, batch) -> {modality: measure})."
        )
    return None


class Loop:
    """A model in training: each step draws batches, and calls the task's hooks around it.

    Args:
        problem: in the protocol.
        strategy: what combines the gradients.
        seed: of a randomised strategy.
        lr: the learning rate.
        steps: how many are planned, for the scheduler.
        only: the losses to train on; None is all of them.
        settings: of `Surgery`.
        guard: of `Surgery.step`; "off" is `backward` and the optimizer's step.

    Raises:
        InputError: where the task does not have what the strategy needs.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        *,
        seed: int,
        lr: float,
        steps: int,
        only: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        guard: Guard = "off",
    ) -> None:
        if (lacking := missing(strategy, problem)) is not None:
            raise InputError(lacking)
        self._problem, self._strategy, self._only = problem, strategy, only
        self._settings, self._guard = dict(settings or {}), guard
        self.losses: tuple[str, ...] = ()  # all that the task has, once a step was taken
        self.model = problem.model()
        if problem.device is not None:
            self.model.to(problem.device)
        self._optimizer = problem.optimizer(self.model.parameters(), lr)
        make = problem.scheduler
        self._scheduler = None if make is None else called(make, self._optimizer, steps)
        self._seed = seed
        self.surgery = Surgery(strategy, self.model, seed=seed, **self._settings)
        self._bound = "scores" not in strategy.inputs or dict(strategy.options).get("modality")
        self._step = 0

    def step(self, draw: Draw, inspecting: Callable[[Record], None] | None = None) -> Record:
        """One step; `inspecting` is given what `gradsurgery.inspect` says of its losses."""
        problem, inputs = self._problem, self._strategy.inputs
        batch = moved(draw(), problem.device)
        losses = given = self._losses(batch)
        if "cross" in inputs:
            if isinstance(given, Mapping):
                others = [moved(draw(), problem.device) for _ in range(BATCHES - 1)]
                given = [given, *map(self._losses, others)]
            losses = given
        elif not isinstance(given, Mapping):
            losses = _mean(given)
        first = losses if isinstance(losses, Mapping) else losses[0]
        if inspecting is not None:
            inspecting(measured(first, self.model))
        more: dict[str, Any] = {}
        if problem.features is not None:
            more["features"] = called(problem.features, self.model, batch)
        if "scores" in inputs and problem.scores is not None:
            more["scores"] = called(problem.scores, self.model, batch, self._strategy.name)
            if not self._bound:
                self._bind(measured(first, self.model), more["scores"])
        self._optimizer.zero_grad()
        if self._guard == "off":
            record = self.surgery.backward(losses, **more)
            self._optimizer.step()
        else:
            record = self.surgery.step(losses, self._optimizer, guard=self._guard, **more)
        if self._scheduler is not None:
            self._scheduler.step()
        if "observed" in inputs:
            with buffers_kept(self.model):
                after = self._losses(batch)  # gradients stay on, since a loss may use them
                self.surgery.observe(after if isinstance(after, Mapping) else _mean(after))
        self._step += 1
        if problem.after_step is not None:
            called(problem.after_step, self.model, batch, self.surgery, self._step)
        return record

    def _losses(self, batch: Any) -> Any:
        found = self._problem.losses(self.model, batch)
        if not self.losses:
            self.losses = tuple(found if isinstance(found, Mapping) or not found else found[0])
        if self._only is None:
            return found
        if isinstance(found, Mapping):
            return _some(found, self._only)
        return [_some(one, self._only) for one in found]

    def _bind(self, groups: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """A group whose losses name one modality that has a measure is that modality's."""
        modality = {
            name: owners[0]
            for name, group in groups.items()
            if len(group.objectives) > 1
            and len(owners := [o for o in group.objectives if o in scores]) == 1
        }
        if not modality:
            raise InputError(
                f"{self._strategy.name}: scores are given for {', '.join(map(repr, scores))}, "
                f"which are no losses of the groups {', '.join(map(repr, groups))}: write "
                f"{self._strategy.name}(modality={{group: modality}})."
            )
        options = {**dict(self._strategy.given), "modality": modality}
        bound = get_strategy(self._strategy.name, **options)
        self.surgery = Surgery(bound, self.model, seed=self._seed, **self._settings)
        self._bound = True


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function with as many of these arguments as it takes."""
    try:
        named = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin without a signature
        return function(*arguments)
    places = [p for p in named if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    free = any(p.kind is p.VAR_POSITIONAL for p in named)
    return function(*arguments[: None if free else len(places)])


def moved(batch: Any, device: Any) -> Any:
    """The batch with its tensors on the device, whatever they are nested in."""
    if device is None:
        return batch
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(moved(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def _mean(given: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of all the batches together, for strategies that take one."""
    if not given:
        raise InputError("losses gave an empty list: return a dict of losses, or several.")
    names = dict.fromkeys(name for one in given for name in one)
    by_name = {name: [one[name] for one in given if name in one] for name in names}
    return {name: torch.stack(values).mean() for name, values in by_name.items()}


def some_of(problem: Problem, names: Sequence[str]) -> Problem:
    """The problem with these of its losses and no others."""

    def losses(model: torch.nn.Module, batch: Any) -> Any:
        return _some(problem.losses(model, batch), names)

    return replace(problem, losses=losses)


def _some(losses: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    if absent := [name for name in names if name not in losses]:
        raise InputError(
            f"alone: no loss is called {absent[0]!r}; the task has {', '.join(map(repr, losses))}."
        )
    return {name: losses[name] for name in names}

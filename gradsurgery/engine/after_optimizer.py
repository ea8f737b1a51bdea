"""`Surgery.step`: backward, the optimizer's step, and what that did to each objective."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gradsurgery.engine.changes import Made, after, unmeasured
from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.config import Config
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.guard import GroupStep, Guards, Writes, corrected, write
from gradsurgery.engine.kept import Kept
from gradsurgery.engine.metric import check_bound, held_by, metric_of
from gradsurgery.engine.refusals import unwrapped
from gradsurgery.engine.scaler import is_on, step_under, unscale
from gradsurgery.errors import InputError, OptimizerError, one_of
from gradsurgery.gradients.transfer import to_host
from gradsurgery.record import Record

Guard = Literal["report", "correct", "off"]


@dataclass(frozen=True)
class Settings:
    """What `Surgery.step` was asked for, checked."""

    guard: Guard
    on: str | tuple[str, ...]
    bound: float
    scaler: Any
    between: Callable[[], object] | None


def settings_of(
    config: Config, guard: Any, on: Any, bound: Any, scaler: Any, between: Any, features: Any
) -> Settings:
    """The settings of a step, checked before anything is done.

    Raises:
        InputError: for one that cannot be used, or not with the Surgery's settings.
    """
    if guard not in ("report", "correct", "off"):
        raise InputError(one_of("guard", str(guard), ("report", "correct", "off")))
    if between is not None and not callable(between):
        raise InputError(
            f"between: expected a function without arguments; got {type(between).__name__}."
        )
    check_bound(bound)
    if isinstance(on, str) and on == "protected" and config.protect is None:
        raise InputError(
            "guard_on='protected': no objective is protected; give Surgery(..., protect=NAME), or "
            "guard_on=[NAME, ...]."
        )
    if isinstance(on, str) and on not in ("all", "protected"):
        raise InputError(
            f"guard_on: expected 'all', 'protected', or a list of names; got {on!r}. "
            f"For one objective: guard_on=[{on!r}]."
        )
    names = on if isinstance(on, str) else tuple(on) if isinstance(on, Iterable) else (on,)
    if not isinstance(names, str) and not all(isinstance(name, str) for name in names):
        raise InputError(f"guard_on: expected names of objectives; got {on!r}.")
    if not names:
        raise InputError(
            "guard_on: no objective is named; give names of objectives, or 'all'. To guard none, "
            "leave guard_on away and use guard='report'."
        )
    if guard == "correct" and features is not None:
        raise InputError(
            "guard='correct': with features= the gradients of single losses are known at the "
            "features only, and not for the parameters that move. Leave features= away, or use "
            "guard='report'."
        )
    if guard == "correct" and config.decide_on is not None:
        raise InputError(
            "guard='correct' needs the gradients of single losses for all that moves, and with "
            "decide_on= they are formed for a part: leave decide_on= away, or use guard='report'."
        )
    if guard == "correct" and config.low_memory:
        raise InputError(
            "guard='correct' needs the gradient of every loss after the optimizer's step, which "
            "memory='low' does not keep: leave memory='auto'."
        )
    return Settings(guard, names, float(bound), scaler, between)


def optimize(
    record: Record,
    kept: Kept | None,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    config: Config,
    communicator: SingleProcess,
) -> Record:
    """The optimizer's step on `.grad`, and the record with what it did.

    Args:
        record: of the step that was decided, whose directions are in `.grad`.
        kept: its gradients; None where nothing is to be measured.
        optimizer: the user's.
        settings: of this call.
        config: of the Surgery.
        communicator: what is exchanged with other processes.

    Raises:
        OptimizerError: where the optimizer's step fails, or what comes after it.
    """
    scaler = settings.scaler
    if kept is not None:
        communicator.stepping()
    unscale(scaler, optimizer)
    if settings.between is not None:
        try:
            settings.between()
        except RuntimeError as error:
            if not is_on(scaler) or "unscale_()" not in str(error):
                raise
            raise InputError(
                "between: scaler.unscale_ was called in it, and step() has unscaled `.grad` "
                "already: leave it out. Nothing was stepped; `.grad` has the combined gradients. "
                "Before the next step call zero_grad() and scaler.update()."
            ) from error
    before = {} if kept is None else _copies(kept, held_by(unwrapped(optimizer)))
    try:
        stepped = step_under(scaler, optimizer)
    except Exception as error:
        raise OptimizerError(
            f"the optimizer's step failed ({type(error).__name__}: {error}). Parameters and the "
            "optimizer's state are as it left them; `.grad` has the combined gradients."
        ) from error
    if settings.guard != "off" and not stepped:
        return unmeasured(record, "the GradScaler skipped the optimizer's step")
    if kept is None:
        return record
    try:
        return _after(record, kept, before, optimizer, settings, config, communicator)
    except Exception as error:
        raise OptimizerError(
            f"after the optimizer's step its change could not be measured or corrected "
            f"({type(error).__name__}: {error}). The optimizer's own step stands."
        ) from error


@torch.no_grad()
def _copies(kept: Kept, held: Mapping[int, object]) -> dict[int, Tensor]:
    """id(parameter) -> a copy, for the groups' parameters that the optimizer holds."""
    wanted = [
        parameter
        for group, _ in kept.pairs
        for name in group.parameters
        if (parameter := kept.targets.get(name)) is not None and id(parameter) in held
    ]
    # Between the gradients and these copies the optimizer's step finds room for what it forms
    # tensor by tensor. At the end of the heap each tensor's would go back to the system, and be
    # had again page by page: on an MLP that took as long as the step itself.
    largest = max((p.nbytes for p in wanted if p.is_cpu), default=0)
    room = torch.empty(2 * largest + (1 << 13), dtype=torch.uint8)
    copies = {id(parameter): parameter.detach().clone() for parameter in wanted}
    del room
    return copies


def _after(
    record: Record,
    kept: Kept,
    before: Mapping[int, Tensor],
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    config: Config,
    communicator: SingleProcess,
) -> Record:
    """Measure each group's step, correct it where that is asked for, and say so."""
    steps, made, writes = list[GroupStep](), dict[str, Made](), Writes()
    for group, matrix in kept.pairs:
        parameters = [kept.targets.get(name) for name in group.parameters]
        own = [p if p is not None and id(p) in before else None for p in parameters]
        if any(p is not None for p in own):
            steps.append(GroupStep(group, matrix, own, before, communicator))
        else:
            made[group.name] = Made.none(group.objectives, "the optimizer holds no parameter of it")
    found = [step.along() for step in steps]
    to_host(found, total=communicator.added)
    for step, along in zip(steps, found, strict=True):
        guards = guards_of(step.group, settings.on, config)
        if settings.guard == "correct" and guards.any():
            total = communicator.added if config.sharded else None
            bound, moving = settings.bound, step.moving
            metric = partial(metric_of, optimizer, moving, bound=bound, total=total)
            made[step.group.name], new = corrected(step, along, guards, metric)
            writes += new
        else:
            made[step.group.name] = step.made(along)
    said = after(record, made, kept.missing)
    if writes:  # last: what fails before leaves the optimizer's own step
        communicator.writing()
        write(writes)
    return said


def guards_of(group: Group, on: str | tuple[str, ...], config: Config) -> Guards:
    """Which objectives of a group are guarded [n]: none where no strategy decides."""
    names = group.objectives
    if len(names) < 2 or not group.several(config.min_objectives):
        return np.zeros(len(names), np.bool_)
    if isinstance(on, str):
        on = names if on == "all" else (str(config.protect),)
    return np.array([name in on for name in names])

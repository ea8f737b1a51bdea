"""Micro-batches: when their gradients may be gathered, added and combined."""

from functools import partial
from typing import Any

import torch

from gradsurgery.engine.accumulation import add as total_of
from gradsurgery.engine.accumulation import check_gathered, check_still_given
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.config import Config
from gradsurgery.engine.converted import check_kinds
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.step import gather_step
from gradsurgery.errors import InputError


def check_none(gathered: GradientSource | None, where: str) -> None:
    """Refuse a call while gradients are gathered that are not combined yet.

    Raises:
        InputError: where there are such.
    """
    if gathered is not None:
        raise InputError(
            f"{where}: gradients were accumulated before; call combine(), or step(None, "
            "optimizer), or discard() to drop them."
        )


def add(
    gathered: GradientSource | None,
    config: Config,
    losses: Losses,
    history: History,
    communicator: SingleProcess,
    cache: TraceCache,
    scaler: Any,
    retain_graph: bool,
) -> tuple[list[partial[Any]], GradientSource, History]:
    """The gradients of one more micro-batch, added to those gathered before.

    Returns:
        Calls that add the numbers in place, the sum as it is once they were made, and the history
        that goes with it.

    Raises:
        InputError: for settings or losses that cannot be accumulated, or a converted model.
        NonFiniteError: for NaN or inf, naming the objective.
    """
    if config.low_memory:
        raise InputError(
            "accumulate keeps the gradient of every loss until combine(): leave memory='auto'."
        )
    if config.decide_on is not None:
        raise InputError(
            "accumulate keeps every gradient of every loss until combine(): leave decide_on out."
        )
    if losses.batches > 1:
        raise InputError(
            f"accumulate: strategy {config.required.name!r} takes losses of several batches at "
            "once; give them to backward."
        )
    if gathered is not None:
        check_kinds("accumulate", gathered.trace.tensors, gathered.kinds)
    given = {"scaler": scaler, "retain_graph": retain_graph}
    new, history = gather_step(config, losses, history, communicator, cache, **given)
    if config.check and new.scale is None:
        check_gathered(new)
    total, sums, terms = total_of(gathered, new)
    communicator.gathered()
    return [partial(torch._foreach_add_, sums, terms)] if sums else [], total, history


def complete(gathered: GradientSource | None, parameters: Parameters) -> GradientSource:
    """What was gathered, to be combined.

    Raises:
        InputError: when that is nothing, or the parameters are not what they were.
    """
    if gathered is None:
        raise InputError(
            "combine: nothing was gathered; call accumulate(losses) for each micro-batch first, "
            "and then combine() or step(None, optimizer), one of the two."
        )
    now = {name: tensor for name, tensor, _ in parameters.named().values()}
    check_still_given("combine", gathered.trace, now)
    check_kinds("combine", gathered.trace.tensors, gathered.kinds)
    return gathered

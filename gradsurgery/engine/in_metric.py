"""metric="optimizer": a step's problems are solved on JPJᵀ, P the metric of the optimizer."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.config import Config
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.metric import is_identity, metric_of, scale_here
from gradsurgery.engine.parallel.dtensor import local_of
from gradsurgery.engine.source import GradientSource
from gradsurgery.errors import InputError, NonFiniteError, one_of
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.scaled import Scaled, Seen
from gradsurgery.gradients.transfer import Total, to_host
from gradsurgery.record import GroupRecord

METRICS = ("euclidean", "optimizer")


def metric_setting(
    given: Any, optimizer: Any, bound: float, config: Config, features: Any
) -> "InMetric | None":
    """The setting `metric` of a step; None for the Euclidean one.

    Raises:
        InputError: for another one, and for what cannot be solved in the optimizer's.
    """
    if not isinstance(given, str) or given not in METRICS:
        raise InputError(one_of("metric", str(given), METRICS))
    if given == "euclidean":
        return None
    strategy, what = config.required, "metric='optimizer'"
    who = f"strategy {strategy.name!r}"
    if strategy.acts_on == "losses" or not strategy.needs_gradients:
        raise InputError(
            f"{what}: {who} does not decide on gradients, so that there is nothing to solve in a "
            "metric; leave metric out, or take a strategy like 'upgrad'."
        )
    if {"rows", "state"} <= strategy.inputs:
        raise InputError(
            f"{what}: {who} takes `rows` and remembers from step to step, while the metric is "
            "another one in each; leave metric out."
        )
    if features is not None:
        raise InputError(
            f"{what}: with features= problems are solved at the features, which no optimizer "
            "moves; leave one of the two out."
        )
    if config.low_memory:
        raise InputError(
            f"{what}: memory='low' does not keep the gradients whose products in the metric are "
            "needed; leave memory='auto'."
        )
    return InMetric(optimizer, bound)


class InMetric:
    """The metric of an optimizer for one step's problems, from its state before the step.

    Args:
        optimizer: the user's.
        bound: as of `metric_of`.

    Attributes:
        names: group -> its metric's name.
    """

    def __init__(self, optimizer: Any, bound: float) -> None:
        self.optimizer, self.bound = optimizer, bound
        self.names: dict[str, str] = {}

    def seen(
        self,
        config: Config,
        source: GradientSource,
        groups: Sequence[Group],
        matrices: Sequence[GradientMatrix],
    ) -> list[Seen]:
        """Each group's gradients as its problem is to see them, P of geometric mean 1.

        The mean is over the coordinates that move, P > 0. Where P is constant, as before an
        optimizer's first step, they are the gradients themselves; so they are where nothing moves,
        and in groups that no strategy decides on.

        Raises:
            InputError: for a strategy that takes `rows` where a part of a group does not move.
            NonFiniteError: for an optimizer's state with NaN.
        """
        found: list[Seen] = list(matrices)
        # where a strategy takes whole gradients, each process has all products
        rows = "rows" in config.required.inputs
        scaled: dict[int, Scaled] = {}
        logs: list[Tensor] = []
        for i, (group, matrix) in enumerate(zip(groups, matrices, strict=True)):
            names = group.objectives
            guarded = len(names) > 1 and config.protect in names
            if group.several(config.min_objectives) or guarded:
                new = self._scaled(source, group, matrix, logs, rows, config.sharded)
                if new is not None:
                    scaled[i] = new
        if not scaled:
            return found
        total = None if rows else source.communicator.total
        if config.sharded:  # of a sharded P each rank has a part
            numbers = to_host(scaled.values(), logs, (), _together(source.communicator))
        else:
            numbers = to_host(scaled.values(), (), logs, total)
        for (i, own), sum_of_logs, moving in zip(
            scaled.items(), numbers[::2], numbers[1::2], strict=True
        ):
            name = groups[i].name
            if not math.isfinite(sum_of_logs):
                raise NonFiniteError(
                    f"metric='optimizer': the optimizer's state for group {name!r} has NaN or "
                    "infinity. Nothing was changed."
                )
            if rows and moving < sum(own.splits):
                raise InputError(
                    f"metric='optimizer': strategy {config.required.name!r} takes `rows`, and in "
                    f"group {name!r} the optimizer does not move all coordinates (learning rate 0, "
                    "or not held): no direction is defined for them. Leave metric out."
                )
            if moving:
                own.unit = math.exp(sum_of_logs / moving)
                found[i] = own
            else:
                self.names[name] = "identity"
        return found

    def _scaled(
        self,
        source: GradientSource,
        group: Group,
        matrix: GradientMatrix,
        logs: list[Tensor],
        alone: bool,
        sharded: bool,
    ) -> Scaled | None:
        """A group's gradients in the metric, or None where it is constant; Σ log P to `logs`."""
        communicator, targets = source.communicator, source.trace.targets
        names = list(source.with_gradients(group.parameters))
        whole = [targets[name] for name in names]  # those of the group may be shares
        total = _together(communicator) if sharded else None
        metric = metric_of(self.optimizer, whole, bound=self.bound, total=total)
        scales = [metric.scales[id(parameter)] for parameter in whole]
        said = {
            name if isinstance(scale, Tensor) or is_identity(name) else "identity"
            for parameter, scale in zip(whole, scales, strict=True)
            if (isinstance(scale, Tensor) or scale > 0) and (name := metric.names[id(parameter)])
        }
        self.names[group.name] = ", ".join(sorted(said)) or "identity"
        if not any(isinstance(scale, Tensor) for scale in scales) and len({*scales}) == 1:
            return None
        portions = [1.0 if alone else communicator.counted(name) for name in names]
        logs += _logs(whole, scales, portions if sharded else [1.0] * len(names))
        parts = [
            scale_here(scale, parameter, partial(communicator.part, name))
            for name, parameter, scale in zip(names, whole, scales, strict=True)
        ]
        return Scaled(matrix, parts, portions)

    def noted(self, record: GroupRecord, seen: Seen) -> GroupRecord:
        """The record of a group whose problem was solved in it."""
        gram = seen.gram if seen.batches == 1 else seen.cross.mean((0, 1))
        return replace(record, solved_in=self.names[record.name], solved_gram=gram)


def _together(communicator: SingleProcess) -> Total:
    """The communicator's sums of numbers that are no losses: what each rank has is not kept."""
    return lambda values, products: communicator.total([], [*values, *products])


def _logs(
    parameters: Sequence[Tensor], scales: Sequence[Tensor | float], portions: Sequence[float]
) -> list[Tensor]:
    """Σ log P over the coordinates that move, and how many they are: two numbers on a device."""
    known, size = 0.0, 0.0
    total: Tensor | None = None
    for parameter, scale, portion in zip(parameters, scales, portions, strict=True):
        if isinstance(scale, Tensor):
            moving = scale != 0  # and NaN, which is to be seen
            logs = torch.where(moving, scale, torch.ones_like(scale)).log()
            wide = torch.float32 if scale.device.type == "mps" else torch.float64
            pair = torch.stack([logs.sum(dtype=wide), moving.sum().to(wide)]) * portion
            total = pair if total is None else total + pair.to(total)
        elif scale:
            own = local_of(parameter).numel() * (2 if parameter.is_complex() else 1) * portion
            known, size = known + math.log(scale) * own, size + own
    if total is None:
        total = torch.zeros(2, dtype=torch.float64)
    return list((total + total.new_tensor([known, size])).unbind())

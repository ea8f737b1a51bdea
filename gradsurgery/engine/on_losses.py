"""Strategies that look at no gradient: one backward pass for everything."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.contract.state import State
from gradsurgery.engine import commit
from gradsurgery.engine.behind import behind_features
from gradsurgery.engine.checks import (
    Array,
    OutOfRangeError,
    check_losses,
    read_finite,
    suspects,
    values_later,
    values_of,
)
from gradsurgery.engine.grouping import Group, Grouping, GroupKey
from gradsurgery.engine.history import LOSSES, History
from gradsurgery.engine.losses import root_gradients
from gradsurgery.engine.scaler import overflow
from gradsurgery.engine.scene import Scene, groups_of
from gradsurgery.engine.solve import Decision, Step, solve
from gradsurgery.engine.source import gather_sum
from gradsurgery.errors import NonFiniteError
from gradsurgery.record import GroupRecord, Record, later


def on_losses(step: Step, strategy: Strategy) -> Decision:
    """A strategy whose weights belong to the losses: one weighted pass for every parameter, heads included."""
    losses, scene, memory = step.losses, step.scene, step.memory
    grouping = groups_of(scene, losses, memory, scene.met)
    values: dict[str, float] = {}
    if "losses" in strategy.inputs:
        values = values_of(losses)
        if step.plan.check and step.scale is None:
            check_losses(values, grouping.groups)
    everything = Group(LOSSES, "+".join(losses.names), {**scene.trained, **scene.others})
    kept = (step.replay or {}).get(LOSSES, {})
    replaying = set(kept) == set(losses.names)
    if replaying:
        outcome, state = Outcome(np.array([kept[name] for name in losses.names])), None
    elif all(map(math.isfinite, values.values())):
        outcome, state = solve(step, strategy, values, everything, losses.names, None)
    else:  # let through by nonfinite="ignore", or for the scaler to see
        outcome, state = Outcome(np.ones(len(losses.names))), None
    assert outcome.weights is not None
    weights = dict(zip(losses.names, outcome.weights.tolist(), strict=True))
    gradients = weighted_pass(step, outcome.weights, grouping.tensors, step.retain_graph)
    records = partial(_records, grouping.outline, weights, strategy.name, outcome, replaying)
    states = {everything.key: state} if state is not None else {}
    if scene.unsure:  # what a compiled region reaches, only gradients tell
        grouping = replace(grouping, reach=memory.reach)
    solved: dict[GroupKey, dict[str, float]] | None = (
        None if replaying else {LOSSES: weights} if step.plan.every > 1 else {}
    )
    return finish(step, strategy, grouping, gradients, values, states, records, solved)


def _records(
    groups: Sequence[tuple[str, tuple[str, ...], int]],
    weights: Mapping[str, float],
    strategy: str,
    outcome: Outcome,
    replaying: bool,
) -> dict[str, GroupRecord]:
    return {
        name: GroupRecord(
            name,
            objectives,
            strategy,
            parameters,
            weights=np.array([weights[o] for o in objectives]),
            gap=outcome.gap,
            converged=outcome.converged,
            replayed=replaying,
        )
        for name, objectives, parameters in groups
    }


def before_gradients(step: Step, strategy: Strategy) -> Decision | None:
    """A group strategy that looks at no gradient: if its weights are equal within each group, one pass of the sum and a factor a group; else None."""
    plan, losses, scene, memory = step.plan, step.losses, step.scene, step.memory
    if scene.unsure:
        return None
    grouping = groups_of(scene, losses, memory, scene.met)
    values = values_of(losses) if "losses" in strategy.inputs else {}
    factors: dict[str, float] = {}
    records: dict[str, GroupRecord] = {}
    states: dict[GroupKey, State] = {}
    solved: dict[GroupKey, dict[str, float]] = {}
    for group in grouping.groups:
        names = group.objectives
        applied = not group.plain and len(names) >= plan.min_objectives
        outcome = Outcome(np.ones(len(names)))
        if applied:
            outcome, state = solve(step, strategy, values, group, names, None)
            if state is not None:
                states[group.key] = state
        row = outcome.weights
        if row is None or row.ndim != 1 or not (row == row[0]).all():
            return None
        if applied and plan.every > 1:
            solved[group.key] = dict(zip(names, row.tolist(), strict=True))
        factors.update(dict.fromkeys(group.parameters, float(row[0])))
        records[group.name] = GroupRecord(
            group.name,
            names,
            strategy.name if applied else "plain",
            len(group.parameters),
            weights=row,
            gap=outcome.gap,
            converged=outcome.converged,
        )
    gradients = weighted_pass(step, np.ones(len(losses.names)), grouping.tensors, step.retain_graph)
    return finish(
        step, strategy, grouping, gradients, values, states, lambda: records, solved, factors
    )


def weighted_pass(
    step: Step, weights: Array, wanted: dict[str, Tensor], retain_graph: bool
) -> dict[str, Tensor]:
    """The gradient of Σ wᵢ Lᵢ for `wanted`, in one backward pass."""
    losses = step.losses
    roots = [w * own for w, own in zip(weights.tolist(), losses.weights.tolist(), strict=True)]
    starts = root_gradients(losses, roots, step.scale)
    return gather_sum(losses.tensors, starts, wanted, retain_graph)


def skipped(
    scene: Scene,
    strategy: Strategy | None,
    values: dict[str, float],
    memory: History,
    groups: Sequence[Group],
    sparse: Iterable[str] = (),
) -> Decision:
    """What a GradScaler skips: infinity everywhere, and no step remembered.

    `sparse` are the names whose gradients are sparse.
    """
    name = None if strategy is None else strategy.name
    records = {
        group.name: GroupRecord(
            group.name, group.objectives, name or "plain", len(group.parameters)
        )
        for group in groups
    }
    infinite = overflow(scene.written, {id(scene.parameter(name)) for name in sparse})
    return Decision(infinite, memory, Record(name, values, records, memory.step, overflow=True))


def finish(
    step: Step,
    strategy: Strategy,
    grouping: Grouping,
    found: dict[str, Tensor],
    values: dict[str, float],
    states: dict[GroupKey, State],
    records: Callable[[], dict[str, GroupRecord]],
    solved: dict[GroupKey, dict[str, float]] | None,
    factors: Mapping[str, float] | None = None,
    sums: Mapping[str, Tensor] | None = None,
) -> Decision:
    """The decision from gradients that are already weighted, but for a factor per parameter; `found` is used up.

    Args:
        step: the step.
        strategy: what decided the weights.
        grouping: the groups.
        found: parameter -> gradient.
        values: the losses' values where they are known already.
        states: the new states.
        records: gives the Record's groups.
        solved: the weights to use again; None where those of an earlier step were used.
        factors: what a parameter's gradient is to be multiplied by.
        sums: the plain sum at the features, where `found` holds something else there.
    """
    losses, memory, scene = step.losses, step.memory, step.scene
    names = list(found)
    sparse: list[str] = []
    if step.scale is not None:
        sparse = [name for name, gradient in found.items() if gradient.layout != torch.strided]
    if step.plan.check:
        numbers, odd = read_finite(losses, list(found.values()))
        values, bad = (
            losses.values(numbers),
            [names[i] for i in odd if names[i] not in scene.unchecked],
        )
        if step.scale is not None and (bad or not all(map(math.isfinite, values.values()))):
            return skipped(scene, strategy, values, memory, grouping.groups, sparse)
        check_losses(values, grouping.groups)
        if bad:
            raise NonFiniteError(suspects(bad, grouping, losses))
    read = (lambda: values) if values else values_later(losses)
    features = (
        {name: found.pop(name) for name in names if name in scene.cut.features}
        if scene.cut.features
        else {}
    )
    factors = factors or {}
    parameters = [scene.parameter(name) for name in found]
    gradients, scales = (
        list(found.values()),
        [factors.get(name, 1.0) for name in found] if factors else [],
    )
    found.clear()
    directions = commit.owned(gradients, parameters)
    for direction, scale in zip(directions, scales, strict=False):
        if scale != 1.0:
            direction.mul_(scale)
    results = list(zip(parameters, directions, strict=True))
    if features:
        roots = {name: g * factors.get(name, 1.0) for name, g in features.items()}
        try:
            results += behind_features(
                scene,
                roots,
                [features if sums is None else sums],
                step.retain_graph,
                step.plan.check,
            )
        except OutOfRangeError:
            if step.scale is None:
                raise
            return skipped(scene, strategy, values, memory, grouping.groups, sparse)
    return Decision(
        results,
        memory.advance(grouping.reach, states, step.weights, solved),
        later(strategy.name, read, records, memory.step),
    )

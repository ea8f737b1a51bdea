"""Strategies on groups: one pass per loss, then a Gram matrix and a problem per group."""

from functools import partial

import numpy as np
from torch import Tensor

from gradsurgery.autograd.behind import behind_features
from gradsurgery.autograd.checks import all_finite, check_finite, fits
from gradsurgery.autograd.gathered import Gathered, sift
from gradsurgery.autograd.groups import Group, GroupKey
from gradsurgery.autograd.on_losses import LOSSES, skipped
from gradsurgery.autograd.precision import one_scale
from gradsurgery.autograd.replay import weights_again, weights_to_keep
from gradsurgery.autograd.scene import Scene, groups_of, objectives_of
from gradsurgery.autograd.solve import Decision, Step, protected, solve
from gradsurgery.contract import Outcome, Strategy
from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.objectives import Objectives, to_host, without_autocast
from gradsurgery.record import GroupRecord, Record
from gradsurgery.solvers import is_stationary
from gradsurgery.state import State


def settle(step: Step, strategy: Strategy | None, gathered: Gathered) -> Decision:
    """Decide a step from the gradients of every loss; strategy None only looks."""
    with without_autocast(gathered.losses.tensors[0].device):
        return _settle(step, strategy, gathered)


def _settle(step: Step, strategy: Strategy | None, gathered: Gathered) -> Decision:
    plan, losses, scene, memory = step.plan, gathered.losses, gathered.scene, step.memory
    gradients, idle = sift(gathered, memory.reach)
    groups, reach, reached = groups_of(scene, losses, memory, gradients)
    parts: list[tuple[Group, tuple[str, ...], Objectives]] = []
    for group in groups:
        names = objectives_of(group, losses, reached)
        rows = [[found[losses.names.index(o)].get(name) for name in group.parameters] for found in losses.by_batch(gradients) for o in names]
        blocks = strategy is not None and "block_grams" in strategy.inputs and not group.plain and len(names) >= plan.min_objectives
        parts.append((group, names, Objectives(rows, list(group.parameters.values()), blocks, losses.batches)))
    scales = [] if gathered.scale is None else list(gathered.scale.reshape(-1).unbind())
    arrived = to_host([o for _, _, o in parts], (*losses.tensors, *scales))
    values = losses.values(arrived[: len(losses.tensors)])
    if scales:
        scale = one_scale(arrived[len(losses.tensors) :])
        if not all_finite(values, [o for _, _, o in parts]) and plan.check and strategy is not None:
            return skipped(scene, strategy, values, memory, [(group, names) for group, names, _ in parts])
        for _, _, objectives in parts:
            objectives.scale = scale
    elif plan.check:
        check_finite(values, [(group.name, names, np.diagonal(o.gram).reshape(losses.batches, -1).max(0)) for group, names, o in parts])

    applies = {group.name: not group.plain and len(names) >= plan.min_objectives for group, names, _ in parts}
    of_losses = strategy is not None and strategy.acts_on == "losses"
    replaying = step.replay is not None and (
        set(step.replay.get(LOSSES, ())) == set(losses.names)
        if of_losses
        else all(weights_again(step.replay, group, names) is not None for group, names, _ in parts if applies[group.name])
    )
    states: dict[GroupKey, State] = {}
    fixed = _weights_of_losses(step, strategy, values, states, replaying) if strategy is not None and of_losses else None
    directions: dict[str, Tensor] = dict(idle)
    solved: dict[GroupKey, dict[str, float]] = {} if fixed is None else {LOSSES: fixed}
    records: dict[str, GroupRecord] = {}
    for group, names, objectives in parts:
        gram = objectives.cross.mean((0, 1)) if losses.batches > 1 else objectives.gram
        finite = bool(np.isfinite(objectives.gram).all()) and all(np.isfinite(values[o]) for o in names)
        applied = strategy if fixed is not None or (applies[group.name] and finite) else None
        again = weights_again(step.replay, group, names) if step.replay is not None and replaying and applied is not None and fixed is None else None
        outcome = Outcome(np.ones(len(names)) if losses.batches == 1 else np.full((losses.batches, len(names)), 1 / losses.batches))
        if fixed is not None:
            outcome = Outcome(np.array([fixed[o] for o in names]))
        elif again is not None:
            outcome = Outcome(again)
        elif applied is not None:
            outcome, state = solve(step, applied, values, group, names, objectives)
            if state is not None:
                check_no_rows(applied, group, scene, state)
                states[group.key] = state
        if strategy is not None and plan.protect in names and len(names) > 1 and finite and (fixed is not None or not group.plain) and again is None:
            outcome = protected(outcome, objectives, names.index(plan.protect))
        if plan.every > 1 and applied is not None and fixed is None:
            solved[group.key] = weights_to_keep(applied, names, outcome)
        if strategy is not None:
            found = objectives.combine(outcome.weights) if outcome.weights is not None else objectives.split(_direction(outcome))
            if plan.check and not fits(found, objectives, outcome):
                if scales:
                    return skipped(scene, strategy, values, memory, [(group, names) for group, names, _ in parts])
                raise NonFiniteError(
                    f"the direction of strategy {strategy.name if applied else 'sum'!r} in group {group.name!r} is not finite in the parameters' dtype. "
                    "Nothing was changed."
                )
            directions |= {name: d for name, d in zip(group.parameters, found, strict=True) if d is not None}
        records[group.name] = GroupRecord(
            group.name,
            names,
            applied.name if applied is not None else "plain",
            len(group.parameters),
            gram,
            outcome.weights if strategy is not None else None,
            outcome.gap,
            outcome.converged,
            partial(is_stationary, eps=objectives.eps) if finite else None,
            replaying and applied is not None,
        )
    record = Record(strategy.name if strategy is not None else None, values, records, memory.step)
    results = [(scene.parameter(name), d) for name, d in directions.items() if name not in scene.cut.features]
    if strategy is not None and scene.cut.features:
        try:
            results += behind_features(scene, directions, gradients, step.retain_graph, plan.check)
        except NonFiniteError:
            if not scales:
                raise
            return skipped(scene, strategy, values, memory, [(group, names) for group, names, _ in parts])
    unreached = {name: frozenset[str]() for name in idle if name not in reach and name in scene.trained}
    return Decision(results, memory.after({**reach, **unreached}, states, step.weights, None if replaying else solved if plan.every > 1 else {}), record)


def check_no_rows(strategy: Strategy, group: Group, scene: Scene, state: State) -> None:
    """Gradients at the features belong to the examples of one batch.

    Raises:
        InputError: for a strategy that keeps gradients from step to step.
    """
    if state.has_rows and not scene.cut.features.keys().isdisjoint(group.parameters):
        raise InputError(f"features: strategy {strategy.name!r} keeps gradients between steps, and those at the features are of other examples each time.")


def _weights_of_losses(step: Step, strategy: Strategy, values: dict[str, float], states: dict[GroupKey, State], replaying: bool) -> dict[str, float]:
    """The weights that a strategy which acts on losses gives them, for a step that looks at gradients all the same."""
    if step.replay is not None and replaying:
        return dict(step.replay[LOSSES])
    if not all(map(np.isfinite, values.values())):  # let through by nonfinite="ignore"
        return dict.fromkeys(step.losses.names, 1.0)
    everything = Group(LOSSES, "+".join(step.losses.names), {**step.scene.trained, **step.scene.others})
    outcome, state = solve(step, strategy, values if "losses" in strategy.inputs else {}, everything, step.losses.names, None)
    if state is not None:
        states[everything.key] = state
    assert outcome.weights is not None
    return dict(zip(step.losses.names, outcome.weights.tolist(), strict=True))


def _direction(outcome: Outcome) -> Tensor:
    assert outcome.direction is not None
    return outcome.direction

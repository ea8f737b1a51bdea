"""Strategies on groups: one pass per loss, then a Gram matrix and a problem per group."""

from functools import partial

import numpy as np
from torch import Tensor

from gradsurgery.autograd.checks import check_directions, check_finite, check_losses, values_of
from gradsurgery.autograd.groups import Group, check_dense
from gradsurgery.autograd.jacobian import gather
from gradsurgery.autograd.losses import root_gradients
from gradsurgery.autograd.scene import groups_of, objectives_of
from gradsurgery.autograd.solve import Decision, Step, protected, solve
from gradsurgery.contract import Outcome, Strategy
from gradsurgery.objectives import Objectives, to_host
from gradsurgery.record import GroupRecord, Record
from gradsurgery.solvers import is_stationary
from gradsurgery.state import State


def on_groups(step: Step, strategy: Strategy | None) -> Decision:
    """Decide a step from the gradients of every loss; strategy None only looks."""
    plan, losses, scene, memory = step.plan, step.losses, step.scene, step.memory
    states: dict[frozenset[str] | str, State] = {}
    fixed = None
    if strategy is not None and strategy.acts_on == "losses":
        fixed = _weights_of_losses(step, strategy, states)
    gradients = gather(losses.tensors, root_gradients(losses, losses.weights), scene.wanted, step.retain_graph)
    for found in gradients:
        for name, gradient in found.items():
            check_dense(name, gradient)
    groups, reach, reached = groups_of(scene, losses, memory, gradients)
    parts: list[tuple[Group, tuple[str, ...], Objectives]] = []
    for group in groups:
        names = objectives_of(group, losses, reached)
        rows = [[found[losses.names.index(o)].get(name) for name in group.parameters] for found in losses.by_batch(gradients) for o in names]
        blocks = strategy is not None and "block_grams" in strategy.inputs and not group.plain and len(names) >= plan.min_objectives
        parts.append((group, names, Objectives(rows, list(group.parameters.values()), blocks, losses.batches)))
    values = losses.values(to_host([o for _, _, o in parts], losses.tensors))
    if plan.check:
        check_finite(values, [(group.name, names, np.diagonal(o.gram).reshape(losses.batches, -1).max(0)) for group, names, o in parts])

    results: list[tuple[Tensor, Tensor]] = []
    records: dict[str, GroupRecord] = {}
    for group, names, objectives in parts:
        gram = objectives.cross.mean((0, 1)) if losses.batches > 1 else objectives.gram
        finite = bool(np.isfinite(objectives.gram).all()) and all(np.isfinite(values[o]) for o in names)
        applied = strategy if fixed is not None or (not group.plain and len(names) >= plan.min_objectives and finite) else None
        outcome = Outcome(np.ones(len(names)) if losses.batches == 1 else np.full((losses.batches, len(names)), 1 / losses.batches))
        if fixed is not None:
            outcome = Outcome(np.array([fixed[o] for o in names]))
        elif applied is not None:
            outcome, state = solve(step, applied, values, group, names, objectives)
            if state is not None:
                states[group.key] = state
        if strategy is not None and plan.protect in names and len(names) > 1 and finite and (fixed is not None or not group.plain):
            outcome = protected(outcome, objectives, names.index(plan.protect))
        if strategy is not None:
            directions = objectives.combine(outcome.weights) if outcome.weights is not None else objectives.split(_direction(outcome))
            if plan.check:
                check_directions(applied, group.name, directions, objectives, outcome)
            results += [(p, d) for p, d in zip(group.parameters.values(), directions, strict=True) if d is not None]
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
        )
    record = Record(strategy.name if strategy is not None else None, values, records, memory.step)
    return Decision(results, memory.after(reach, states, step.weights), record)


def _weights_of_losses(step: Step, strategy: Strategy, states: dict[frozenset[str] | str, State]) -> dict[str, float]:
    """The weights that a strategy which acts on losses gives them, for a step that looks at gradients all the same."""
    values = values_of(step.losses) if "losses" in strategy.inputs else {}
    if values and step.plan.check:
        groups, _, reached = groups_of(step.scene, step.losses, step.memory, step.scene.wanted)
        check_losses(values, groups, step.losses, reached)
    if not all(map(np.isfinite, values.values())):  # let through by nonfinite="ignore"
        return dict.fromkeys(step.losses.names, 1.0)
    everything = Group("losses", "+".join(step.losses.names), {**step.scene.trained, **step.scene.others})
    outcome, state = solve(step, strategy, values, everything, step.losses.names, None)
    if state is not None:
        states[everything.key] = state
    assert outcome.weights is not None
    return dict(zip(step.losses.names, outcome.weights.tolist(), strict=True))


def _direction(outcome: Outcome) -> Tensor:
    assert outcome.direction is not None
    return outcome.direction

"""Gram matrices for the Record of a step decided without the gradients of single losses."""

from dataclasses import replace

import numpy as np

from gradsurgery.engine.gathered import Gathered
from gradsurgery.engine.history import History
from gradsurgery.engine.on_groups import settle
from gradsurgery.engine.scene import Plan
from gradsurgery.engine.solve import Decision, Step
from gradsurgery.record import GroupRecord, Record


def is_due(plan: Plan, memory: History) -> bool:
    """Whether this step is one of those that the user wants measured."""
    return (
        plan.strategy is not None and plan.measure is not None and memory.step % plan.measure == 0
    )


def measured(step: Step, decision: Decision, gathered: Gathered) -> Decision:
    """The same decision, with what `inspect` says of the gradients in its Record."""
    looking = replace(step, plan=replace(step.plan, nonfinite="ignore"), replay=None)
    inspected = settle(looking, None, gathered).record
    before = decision.record
    if step.plan.required.acts_on == "losses":
        groups = _by_objective(before, inspected)
    else:
        groups = {
            name: _with_gram(g, inspected.groups.get(name)) for name, g in before.groups.items()
        }
    return replace(decision, record=Record(before.strategy, inspected.losses, groups, before.step))


def _with_gram(group: GroupRecord, found: GroupRecord | None) -> GroupRecord:
    if found is None or found.objectives != group.objectives:
        return group
    return replace(group, gram=found.gram, stationarity=found.stationarity)


def _by_objective(before: Record, inspected: Record) -> dict[str, GroupRecord]:
    """Weights of losses fit any groups: those of a compiled region show only in the gradients."""
    every = next(iter(before.groups.values()))
    weights: dict[str, float] = {}
    for group in before.groups.values():
        if group.weights is not None:
            weights.update(zip(group.objectives, group.weights.tolist(), strict=True))
    return {
        name: replace(
            found,
            strategy=every.strategy,
            weights=np.array([weights[o] for o in found.objectives]),
            gap=every.gap,
            converged=every.converged,
            replayed=every.replayed,
        )
        for name, found in inspected.groups.items()
    }

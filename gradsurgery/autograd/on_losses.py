"""Strategies that look at no gradient: one backward pass for everything."""

import numpy as np
import torch
from torch import Tensor

from gradsurgery.autograd import commit
from gradsurgery.autograd.checks import Array, check_losses, suspects, values_of
from gradsurgery.autograd.groups import Group, check_dense
from gradsurgery.autograd.jacobian import gather_sum
from gradsurgery.autograd.losses import root_gradients
from gradsurgery.autograd.scene import groups_of, objectives_of
from gradsurgery.autograd.solve import Decision, Step, solve
from gradsurgery.contract import Outcome, Strategy
from gradsurgery.errors import NonFiniteError
from gradsurgery.objectives import to_host
from gradsurgery.record import GroupRecord, Record
from gradsurgery.state import State


def on_losses(step: Step, strategy: Strategy) -> Decision:
    """A strategy whose weights belong to the losses: one weighted pass for every parameter, heads included."""
    plan, losses, scene, memory = step.plan, step.losses, step.scene, step.memory
    groups, reach, reached = groups_of(scene, losses, memory, scene.wanted)
    values: dict[str, float] = {}
    if "losses" in strategy.inputs:
        values = values_of(losses)
        if plan.check:
            check_losses(values, groups, losses, reached)
    everything = Group("losses", "+".join(losses.names), {**scene.trained, **scene.others})
    if all(map(np.isfinite, values.values())):
        outcome, state = solve(step, strategy, values, everything, losses.names, None)
    else:  # let through by nonfinite="ignore"
        outcome, state = Outcome(np.ones(len(losses.names))), None
    assert outcome.weights is not None
    weights = dict(zip(losses.names, outcome.weights.tolist(), strict=True))
    results, values = _one_pass(step, outcome.weights, {}, groups, reached, values)
    records = {}
    for group in groups:
        names = objectives_of(group, losses, reached)
        row = np.array([weights[o] for o in names])
        records[group.name] = GroupRecord(group.name, names, strategy.name, len(group.parameters), weights=row, gap=outcome.gap, converged=outcome.converged)
    states = {everything.key: state} if state is not None else {}
    return Decision(results, memory.after(reach, states, step.weights), Record(strategy.name, values, records, memory.step))


def before_gradients(step: Step, strategy: Strategy) -> Decision | None:
    """A group strategy that looks at no gradient: if its weights are equal within each group, one pass of the sum and a factor a group; else None."""
    plan, losses, scene, memory = step.plan, step.losses, step.scene, step.memory
    groups, reach, reached = groups_of(scene, losses, memory, scene.wanted)
    values = values_of(losses) if "losses" in strategy.inputs else {}
    factors: dict[str, float] = {}
    records: dict[str, GroupRecord] = {}
    states: dict[frozenset[str] | str, State] = {}
    for group in groups:
        names = objectives_of(group, losses, reached)
        applied = not group.plain and len(names) >= plan.min_objectives
        outcome = Outcome(np.ones(len(names)))
        if applied:
            outcome, state = solve(step, strategy, values, group, names, None)
            if state is not None:
                states[group.key] = state
        row = outcome.weights
        if row is None or row.ndim != 1 or not (row == row[0]).all():
            return None
        factors.update(dict.fromkeys(group.parameters, float(row[0])))
        records[group.name] = GroupRecord(
            group.name, names, strategy.name if applied else "plain", len(group.parameters), weights=row, gap=outcome.gap, converged=outcome.converged
        )
    results, values = _one_pass(step, np.ones(len(losses.names)), factors, groups, reached, values)
    return Decision(results, memory.after(reach, states, step.weights), Record(strategy.name, values, records, memory.step))


def _one_pass(
    step: Step, weights: Array, factors: dict[str, float], groups: list[Group], reached: dict[str, tuple[str, ...]], values: dict[str, float]
) -> tuple[list[tuple[Tensor, Tensor]], dict[str, float]]:
    """The gradient of Σ wᵢ Lᵢ in one backward pass, times a factor per parameter."""
    losses = step.losses
    wanted = {name: t for group in groups for name, t in group.parameters.items()}
    found = gather_sum(losses.tensors, root_gradients(losses, weights * losses.weights), wanted, step.retain_graph)
    for name, gradient in found.items():
        check_dense(name, gradient)
    names = list(found)
    if step.plan.check:
        # a sum is the cheapest read that a NaN or inf survives; one that only overflows is looked at again
        totals = [g.detach().sum(dtype=torch.promote_types(g.dtype, torch.float32)) for g in found.values()]
        arrived = to_host((), (*losses.tensors, *totals))
        values = dict(zip(losses.names, arrived, strict=False))
        check_losses(values, groups, losses, reached)
        odd = [name for name, total in zip(names, arrived[len(losses.names) :], strict=True) if not np.isfinite(total)]
        bad = [name for name in odd if not bool(torch.isfinite(found[name]).all())]
        if bad:
            raise NonFiniteError(suspects(bad, groups, reached, losses))
    values = values or values_of(losses)
    parameters = [wanted[name] for name in names]
    gradients = list(found.values())
    found.clear()
    directions = commit.owned(gradients, parameters)
    for i, name in enumerate(names):
        if factors.get(name, 1.0) != 1.0:
            directions[i] = directions[i].mul_(factors[name])
    return list(zip(parameters, directions, strict=True)), values

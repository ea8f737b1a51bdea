"""One step, up to but not including the writing: gradients, groups, Gram matrices, weights, directions, checks."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gradsurgery.autograd import commit
from gradsurgery.autograd.checks import Array, check_directions, check_finite, check_losses, suspects, values_of
from gradsurgery.autograd.groups import Group, check_dense
from gradsurgery.autograd.jacobian import gather, gather_sum
from gradsurgery.autograd.losses import Losses, root_gradients
from gradsurgery.autograd.memory import Memory
from gradsurgery.autograd.scene import Plan, Scene, groups_of, look, objectives_of
from gradsurgery.contract import Outcome, Strategy, gradient_inputs, rng_for
from gradsurgery.errors import NonFiniteError, StrategyError
from gradsurgery.objectives import Objectives, to_host
from gradsurgery.record import GroupRecord, Record
from gradsurgery.solvers import is_stationary
from gradsurgery.state import State


@dataclass(frozen=True)
class Decision:
    """What a step would write, what it would remember, and its Record."""

    results: list[tuple[Tensor, Tensor]]
    memory: Memory
    record: Record


def decide(plan: Plan, losses: Losses, memory: Memory, retain_graph: bool) -> Decision:
    """Everything a step decides. Nothing outside is changed but the graph, which is freed unless retained."""
    scene, memory = look(plan, losses, memory)
    strategy = plan.strategy
    if strategy is not None and not strategy.needs_gradients:
        if strategy.acts_on == "losses":
            return _on_losses(plan, strategy, losses, scene, memory, retain_graph)
        return _before_gradients(plan, strategy, losses, scene, memory, retain_graph)
    return _on_groups(plan, strategy, losses, scene, memory, retain_graph)


# ---- strategies on groups: one pass per loss, then a Gram matrix per group


def _on_groups(plan: Plan, strategy: Strategy | None, losses: Losses, scene: Scene, memory: Memory, retain_graph: bool) -> Decision:
    gradients = gather(losses.tensors, root_gradients(losses, losses.weights), scene.wanted, retain_graph)
    for found in gradients:
        for name, gradient in found.items():
            check_dense(name, gradient)
    groups, reach, reached = groups_of(scene, losses, memory, gradients)
    parts: list[tuple[Group, tuple[str, ...], Objectives]] = []
    for group in groups:
        names = objectives_of(group, losses, reached)
        rows = [[gradients[losses.names.index(o)].get(name) for name in group.parameters] for o in names]
        blocks = strategy is not None and "block_grams" in strategy.inputs and not group.plain and len(names) >= plan.min_objectives
        parts.append((group, names, Objectives(rows, list(group.parameters.values()), blocks)))
    values = dict(zip(losses.names, to_host([o for _, _, o in parts], losses.tensors), strict=True))
    if plan.check:
        check_finite(values, [(group.name, names, objectives.gram) for group, names, objectives in parts])

    results: list[tuple[Tensor, Tensor]] = []
    records: dict[str, GroupRecord] = {}
    states: dict[frozenset[str] | str, State] = {}
    for group, names, objectives in parts:
        finite = bool(np.isfinite(objectives.gram).all())
        applied = strategy if not group.plain and len(names) >= plan.min_objectives and finite else None
        outcome = Outcome(np.ones(len(names)))
        if applied is not None:
            outcome, state = _solve(plan, applied, losses, values, group, names, memory, objectives)
            if state is not None:
                states[group.key] = state
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
            objectives.gram,
            outcome.weights if strategy is not None else None,
            outcome.gap,
            outcome.converged,
            partial(is_stationary, eps=objectives.eps) if finite else None,
        )
    record = Record(strategy.name if strategy is not None else None, values, records, memory.step)
    return Decision(results, memory.after(reach, states), record)


def _solve(
    plan: Plan,
    strategy: Strategy,
    losses: Losses,
    values: dict[str, float],
    group: Group,
    names: tuple[str, ...],
    memory: Memory,
    objectives: Objectives | None,
) -> tuple[Outcome, State | None]:
    weight = dict(zip(losses.names, losses.weights.tolist(), strict=True))
    given = {} if objectives is None else gradient_inputs(strategy, objectives)
    given |= {
        "losses": np.array([values[o] * weight[o] for o in names]) if values else None,
        "objectives": names,
        "group": group.name,
        "rng": rng_for(plan.seed, memory.step, group.name) if "rng" in strategy.inputs else None,
    }
    state = bound = None
    if "state" in strategy.inputs:
        state = memory.state_of(group)
        given["state"] = bound = state.bind(names, list(group.parameters), list(group.parameters.values()))
    try:
        outcome = strategy.solve(given, len(names), len(group.parameters))
    except (NonFiniteError, StrategyError) as error:
        raise type(error)(f"group {group.name!r} ({', '.join(names)}): {error}") from error
    if state is not None and bound is not None:
        state.adopt(bound)
    return outcome, state


def _direction(outcome: Outcome) -> Tensor:
    assert outcome.direction is not None
    return outcome.direction


# ---- strategies on losses: one weighted pass for everything


def _on_losses(plan: Plan, strategy: Strategy, losses: Losses, scene: Scene, memory: Memory, retain_graph: bool) -> Decision:
    groups, reach, reached = groups_of(scene, losses, memory, scene.wanted)
    values: dict[str, float] = {}
    if "losses" in strategy.inputs:
        values = values_of(losses)
        if plan.check:
            check_losses(values, groups, losses, reached)
    everything = Group("losses", "+".join(losses.names), {**scene.trained, **scene.others})
    outcome, state = _solve(plan, strategy, losses, values, everything, losses.names, memory, None)
    assert outcome.weights is not None
    weights = dict(zip(losses.names, outcome.weights.tolist(), strict=True))
    results, values = _one_pass(plan, losses, outcome.weights, {}, scene, groups, reached, values, retain_graph)
    records = {}
    for group in groups:
        names = objectives_of(group, losses, reached)
        row = np.array([weights[o] for o in names])
        records[group.name] = GroupRecord(group.name, names, strategy.name, len(group.parameters), weights=row, gap=outcome.gap, converged=outcome.converged)
    states = {everything.key: state} if state is not None else {}
    return Decision(results, memory.after(reach, states), Record(strategy.name, values, records, memory.step))


def _before_gradients(plan: Plan, strategy: Strategy, losses: Losses, scene: Scene, memory: Memory, retain_graph: bool) -> Decision:
    """A group strategy that looks at no gradient: if its weights are equal within each group, one pass of the sum and a factor a group."""
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
            outcome, state = _solve(plan, strategy, losses, values, group, names, memory, None)
            if state is not None:
                states[group.key] = state
        row = outcome.weights
        if row is None or row.ndim != 1 or not (row == row[0]).all():
            return _on_groups(plan, strategy, losses, scene, memory, retain_graph)
        factors.update(dict.fromkeys(group.parameters, float(row[0])))
        records[group.name] = GroupRecord(
            group.name, names, strategy.name if applied else "plain", len(group.parameters), weights=row, gap=outcome.gap, converged=outcome.converged
        )
    results, values = _one_pass(plan, losses, np.ones(len(losses.names)), factors, scene, groups, reached, values, retain_graph)
    return Decision(results, memory.after(reach, states), Record(strategy.name, values, records, memory.step))


def _one_pass(
    plan: Plan,
    losses: Losses,
    weights: Array,
    factors: dict[str, float],
    scene: Scene,
    groups: list[Group],
    reached: dict[str, tuple[str, ...]],
    values: dict[str, float],
    retain_graph: bool,
) -> tuple[list[tuple[Tensor, Tensor]], dict[str, float]]:
    """The gradient of Σ wᵢ Lᵢ in one backward pass, times a factor per parameter."""
    wanted = {name: t for group in groups for name, t in group.parameters.items()}
    found = gather_sum(losses.tensors, root_gradients(losses, weights * losses.weights), wanted, retain_graph)
    for name, gradient in found.items():
        check_dense(name, gradient)
    names = list(found)
    if plan.check:
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

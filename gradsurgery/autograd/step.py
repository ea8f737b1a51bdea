"""One step, up to but not including the writing: gradients, groups, Gram matrices, weights, directions, checks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.autograd import commit
from gradsurgery.autograd.groups import Group, Parameters, Reach, check_dense, is_parameter, leaves_reached, make_groups
from gradsurgery.autograd.jacobian import gather, gather_sum
from gradsurgery.autograd.losses import Losses, root_gradients
from gradsurgery.autograd.memory import Memory
from gradsurgery.errors import InputError, NonFiniteError, StrategyError
from gradsurgery.objectives import Objectives, to_host
from gradsurgery.record import GroupRecord, Record
from gradsurgery.registry import Outcome, State, Strategy, gradient_inputs, rng_for
from gradsurgery.solvers import DEFAULT_EPS, is_stationary

OTHERS = "others"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """The settings of a `Surgery`; strategy None looks and decides nothing."""

    strategy: Strategy | None
    parameters: Parameters
    seed: int = 0
    check: bool = True
    include_others: bool = True
    min_objectives: int = 2


@dataclass(frozen=True)
class Decision:
    """What a step would write, what it would remember, and its Record."""

    results: list[tuple[Tensor, Tensor]]
    memory: Memory
    record: Record


@dataclass(frozen=True)
class _Scene:
    """The parameters of a step by name, the group each was given in, and for each loss those its graph reaches."""

    trained: dict[str, Tensor]
    others: dict[str, Tensor]
    explicit: dict[str, str] | None
    wanted: list[dict[str, Tensor]]

    def reached(self, names: Iterable[str], objectives: tuple[str, ...], by_loss: list[dict[str, Tensor]]) -> dict[str, tuple[str, ...]]:
        return {name: tuple(o for o, found in zip(objectives, by_loss, strict=True) if name in found) for name in names}


def decide(plan: Plan, losses: Losses, memory: Memory, retain_graph: bool) -> Decision:
    """Everything a step decides. Nothing outside is changed but the graph, which is freed unless retained."""
    scene, memory = _look(plan, losses, memory)
    strategy = plan.strategy
    if strategy is not None and not strategy.needs_gradients:
        if strategy.acts_on == "losses":
            return _on_losses(plan, strategy, losses, scene, memory, retain_graph)
        return _before_gradients(plan, strategy, losses, scene, memory, retain_graph)
    return _on_groups(plan, strategy, losses, scene, memory, retain_graph)


def _look(plan: Plan, losses: Losses, memory: Memory) -> tuple[_Scene, Memory]:
    reached = [leaves_reached(loss) for loss in losses.tensors]
    everything = {key: leaf for leaves in reached for key, leaf in leaves.items()}
    given = plan.parameters.named()
    if plan.parameters.discover:
        new = [key for key, leaf in everything.items() if is_parameter(leaf) and key not in memory.known]
        known = {**memory.known, **{key: (f"#{len(memory.known) + i}", everything[key]) for i, key in enumerate(new)}}
        memory = replace(memory, known=known)
        names = {key: known[key][0] for key in everything if key in known}
        if not names:
            raise InputError(
                f"the losses reach no nn.Parameter (they reach {len(everything)} other leaf tensors): give the tensors to train as parameters=."
            )
    else:
        names = {key: name for key, (name, _, _) in given.items() if key in everything}
        if not names:
            raise InputError(f"the losses reach none of the {len(given)} trainable parameters given.")
    outside = {}
    if plan.include_others:
        outside = {key: f"{OTHERS}#{i}" for i, key in enumerate(k for k, leaf in everything.items() if is_parameter(leaf) and k not in names)}
    for key in (*names, *outside):
        if everything[key].is_complex():
            raise InputError(f"a complex parameter ({everything[key].dtype}, shape {list(everything[key].shape)}) is reached; only real ones are supported.")
    both = {**names, **outside}
    scene = _Scene(
        {name: everything[key] for key, name in names.items()},
        {name: everything[key] for key, name in outside.items()},
        {name: group for name, _, group in given.values()} if plan.parameters.explicit else None,
        [{both[key]: leaf for key, leaf in leaves.items() if key in both} for leaves in reached],
    )
    return scene, memory


def _all_groups(scene: _Scene, losses: Losses, memory: Memory, by_loss: list[dict[str, Tensor]]) -> tuple[list[Group], Reach, dict[str, tuple[str, ...]]]:
    reached = scene.reached({**scene.trained, **scene.others}, losses.names, by_loss)
    trained = {name: t for name, t in scene.trained.items() if reached[name]}
    groups, reach = make_groups(trained, scene.explicit, reached, memory.reach)
    others = {name: t for name, t in scene.others.items() if reached[name]}
    if others:
        taken = {g.name for g in groups}
        title = next(t for t in (OTHERS, *(f"{OTHERS} ({i})" for i in range(2, len(taken) + 3))) if t not in taken)
        groups.append(Group(title, title, others, plain=True))
    return groups, reach, reached


def _objectives_of(group: Group, losses: Losses, reached: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    present = {o for name in group.parameters for o in reached[name]}
    return tuple(o for o in losses.names if o in present)


# ---- strategies on groups: one pass per loss, then a Gram matrix per group


def _on_groups(plan: Plan, strategy: Strategy | None, losses: Losses, scene: _Scene, memory: Memory, retain_graph: bool) -> Decision:
    gradients = gather(losses.tensors, root_gradients(losses, losses.weights), scene.wanted, retain_graph)
    for found in gradients:
        for name, gradient in found.items():
            check_dense(name, gradient)
    groups, reach, reached = _all_groups(scene, losses, memory, gradients)
    parts: list[tuple[Group, tuple[str, ...], Objectives]] = []
    for group in groups:
        names = _objectives_of(group, losses, reached)
        found = [gradients[losses.names.index(o)] for o in names]
        rows = [[f.get(name) for name in group.parameters] for f in found]
        blocks = strategy is not None and "block_grams" in strategy.inputs and not group.plain and len(names) >= plan.min_objectives
        parts.append((group, names, Objectives(rows, list(group.parameters.values()), blocks)))
    values = dict(zip(losses.names, to_host([o for _, _, o in parts], losses.tensors), strict=True))
    if plan.check:
        _check_finite(values, [(group.name, names, objectives.gram) for group, names, objectives in parts])

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
                _check_directions(applied, group.name, directions, objectives, outcome)
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
    plan: Plan, strategy: Strategy, losses: Losses, values: dict[str, float], group: Group, names: tuple[str, ...], memory: Memory, objectives: Objectives | None
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


def _on_losses(plan: Plan, strategy: Strategy, losses: Losses, scene: _Scene, memory: Memory, retain_graph: bool) -> Decision:
    groups, reach, reached = _all_groups(scene, losses, memory, scene.wanted)
    values: dict[str, float] = {}
    if "losses" in strategy.inputs:
        values = _values(losses)
        if plan.check:
            _check_losses(values, groups, losses, reached)
    everything = Group("losses", "+".join(losses.names), {**scene.trained, **scene.others})
    outcome, state = _solve(plan, strategy, losses, values, everything, losses.names, memory, None)
    assert outcome.weights is not None
    weights = dict(zip(losses.names, outcome.weights.tolist(), strict=True))
    results, values = _one_pass(plan, losses, outcome.weights, {}, scene, groups, reached, values, retain_graph)
    records = {}
    for group in groups:
        names = _objectives_of(group, losses, reached)
        row = np.array([weights[o] for o in names])
        records[group.name] = GroupRecord(
            group.name, names, strategy.name, len(group.parameters), weights=row, gap=outcome.gap, converged=outcome.converged
        )
    states = {everything.key: state} if state is not None else {}
    return Decision(results, memory.after(reach, states), Record(strategy.name, values, records, memory.step))


def _before_gradients(plan: Plan, strategy: Strategy, losses: Losses, scene: _Scene, memory: Memory, retain_graph: bool) -> Decision:
    """A group strategy that looks at no gradient: if its weights are equal within each group, one pass of the sum and a factor a group."""
    groups, reach, reached = _all_groups(scene, losses, memory, scene.wanted)
    values = _values(losses) if "losses" in strategy.inputs else {}
    factors: dict[str, float] = {}
    records: dict[str, GroupRecord] = {}
    states: dict[frozenset[str] | str, State] = {}
    for group in groups:
        names = _objectives_of(group, losses, reached)
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
    scene: _Scene,
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
        peaks = [torch.linalg.vector_norm(g.detach(), float("inf")) if g.numel() else g.new_zeros(()) for g in found.values()]
        arrived = to_host((), (*losses.tensors, *peaks))
        values = dict(zip(losses.names, arrived, strict=False))
        _check_losses(values, groups, losses, reached)
        bad = [name for name, peak in zip(names, arrived[len(losses.names) :], strict=True) if not np.isfinite(peak)]
        if bad:
            raise NonFiniteError(_suspects(bad, groups, reached, losses))
    values = values or _values(losses)
    parameters = [wanted[name] for name in names]
    gradients = list(found.values())
    found.clear()
    directions = commit.owned(gradients, parameters)
    for i, name in enumerate(names):
        if factors.get(name, 1.0) != 1.0:
            directions[i] = directions[i].mul_(factors[name])
    return list(zip(parameters, directions, strict=True)), values


# ---- checks


def _values(losses: Losses) -> dict[str, float]:
    return dict(zip(losses.names, to_host((), losses.tensors), strict=True))


def _check_finite(values: dict[str, float], grams: list[tuple[str, tuple[str, ...], Array]]) -> None:
    where = {o: ", ".join(repr(g) for g, names, _ in grams if o in names) for o in values}
    for objective, value in values.items():
        if not np.isfinite(value):
            raise NonFiniteError(f"loss {objective!r} is {value}; it reaches the group {where[objective]}. Nothing was changed.")
    bad = [(group, o) for group, names, gram in grams for o, square in zip(names, np.diagonal(gram), strict=True) if not np.isfinite(square)]
    if bad:
        text = "; ".join(f"objective {o!r} in group {group!r}" for group, o in bad)
        raise NonFiniteError(f"the gradient has NaN or inf (or squares that overflow float64): {text}. Nothing was changed.")


def _check_losses(values: dict[str, float], groups: list[Group], losses: Losses, reached: dict[str, tuple[str, ...]]) -> None:
    _check_finite(values, [(g.name, (names := _objectives_of(g, losses, reached)), np.zeros((len(names), len(names)))) for g in groups])


def _suspects(bad: list[str], groups: list[Group], reached: dict[str, tuple[str, ...]], losses: Losses) -> str:
    """After one pass of the sum only the reach tells which loss a NaN came from: one that reaches every bad parameter."""
    where = [g.name for g in groups if any(name in g.parameters for name in bad)]
    common = [o for o in losses.names if all(o in reached[name] for name in bad)]
    common = common or [o for o in losses.names if any(o in reached[name] for name in bad)]
    one = f"objective {common[0]!r}" if len(common) == 1 else "one of the objectives " + ", ".join(map(repr, common))
    return f"the gradient of {one} in group {', '.join(map(repr, where))} has NaN or inf. Nothing was changed."


def _check_directions(strategy: Strategy | None, group: str, directions: list[Tensor | None], objectives: Objectives, outcome: Outcome) -> None:
    """A direction may leave the range of its dtype although gradients and weights are finite."""
    if outcome.weights is not None:
        size = float((np.abs(outcome.weights) @ np.sqrt(np.diagonal(objectives.gram))).max())
        if all(size <= torch.finfo(t.dtype).max / 2 for t in objectives.like):
            return
    if not all(bool(torch.isfinite(d).all()) for d in directions if d is not None):
        name = strategy.name if strategy is not None else "sum"
        raise NonFiniteError(f"the direction of strategy {name!r} in group {group!r} is not finite in the parameters' dtype. Nothing was changed.")

"""Weights that are known before any gradient of a single loss, and the passes that apply them."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.compiled import ONE_PASS
from gradsurgery.engine.config import Config
from gradsurgery.engine.directions import values_of
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.solving import Solving, weights_again
from gradsurgery.engine.source import GradientSource
from gradsurgery.errors import InputError
from gradsurgery.record import group_record

Named = dict[str, Tensor]


def known_weights(config: Config, source: GradientSource, solving: Solving) -> bool:
    """Plan the passes of a step whose weights need no gradient of a single loss; else False.

    The weights are known where the strategy acts on losses or looks at no gradient, and where
    those of an earlier step are used again. What weights of losses do to a protected objective,
    and how long their direction is, only gradients tell.
    """
    strategy = config.required
    if strategy.acts_on == "losses":
        return config.protect is None and _for_losses(config, source, solving)
    if solving.replay is not None:
        if _replayed(config, source, solving):
            return True
        solving.replay = None  # some group has other objectives than it had then
    if strategy.needs_gradients or config.protect is not None:
        return False
    return _without_gradients(config, source, solving)


def _for_losses(config: Config, source: GradientSource, solving: Solving) -> bool:
    """One pass with a weight per loss, for every parameter, heads included."""
    trace = source.trace
    if "losses" in config.required.inputs or source.communicator.several:
        solving.values = values_of(config, source)
    outcome = solving.for_losses()
    weights = outcome.weights
    assert weights is not None
    if config.length is not None and (weights != 1).any():
        return False
    solving.groups, grown = trace.grouping
    # past a compiled region only gradients tell the reach
    solving.reach = trace.before if trace.reach.uncertain else grown
    solving.passes.append((weights.tolist(), trace.reached))
    for name, objectives, count, places in trace.outline:
        own = weights[places]
        solving.records[name] = group_record(
            name,
            objectives,
            config.required.name,
            count,
            own,
            outcome.gap,
            outcome.converged,
            solving.replaying,
        )
    return True


def _replayed(config: Config, source: GradientSource, solving: Solving) -> bool:
    """The weights of an earlier step; False where a group has none from then."""
    trace = source.trace
    reach: Reach | None = trace.reach
    before = solving.history.reach
    if trace.grouping[1] is not before or trace.reach.uncertain:
        reach = trace.reach.expected(before, trace.others)
    if reach is None:
        return False
    groups, grown = trace.grouping if reach is trace.reach else trace.grouped(reach)
    solved: list[tuple[Group, Outcome, bool]] = []
    for group in groups:
        applied = group.several(config.min_objectives)
        weights = np.ones(len(group.objectives))
        if applied:
            again = weights_again(solving.replay, group.key, group.objectives)
            if again is None:
                return False
            weights = again
        solved.append((group, Outcome(weights), applied))
    if source.communicator.several:
        solving.values = values_of(config, source)
    solving.groups, solving.reach, solving.replaying = groups, grown, True
    idle = {name: trace.tensors[name] for name in trace.reach if not reach.ordered(name)}
    _fill(solving, solved, idle)
    if trace.single_pass and len(solving.passes) > 1:
        raise InputError(ONE_PASS)
    return True


def _without_gradients(config: Config, source: GradientSource, solving: Solving) -> bool:
    """A group strategy that looks at no gradient: one pass per distinct vector of weights.

    False where that is more passes than losses, where it gives no weight per objective, or where
    a compiled region hides what is reached.
    """
    trace = source.trace
    if trace.reach.uncertain:
        return False
    if "losses" in config.required.inputs or source.communicator.several:
        solving.values = values_of(config, source)
    groups, grown = trace.grouping
    solved: list[tuple[Group, Outcome, bool]] = []
    for group in groups:
        names = group.objectives
        applied = group.several(config.min_objectives)
        outcome = Outcome(np.ones(len(names)))
        if applied:
            outcome = solving.ask(group.key, group.name, names, group.parameters, None)
            if outcome.weights is None or outcome.weights.ndim != 1:
                return False
            if config.length is not None and (outcome.weights != 1).any():
                solving.reset()
                return False
            if config.every > 1:
                solving.keep(group.key, names, outcome)
        solved.append((group, outcome, applied))
    passes = _fill(solving, solved, {})
    if passes > len(source.losses.names) or (trace.single_pass and passes > 1):
        solving.reset()
        return False
    solving.groups, solving.reach = groups, grown
    return True


def _fill(solving: Solving, solved: Sequence[tuple[Group, Outcome, bool]], idle: Named) -> int:
    """Plan the passes, and make the records, that follow from each group's weights.

    Args:
        solving: filled here.
        solved: per group its outcome, and whether the strategy was applied.
        idle: parameters that get a plain gradient beside.

    Returns:
        The number of passes.
    """
    source, strategy = solving.source, solving.config.required
    known: list[tuple[dict[str, float], Named]] = []
    plain, ones = dict(idle), dict[str, float]()
    for group, outcome, applied in solved:
        row = outcome.weights
        assert row is not None
        weights = row.tolist()
        replayed = applied and solving.replaying
        if applied and not replayed and weights.count(weights[0]) == len(weights):
            # a constant vector: a pass of the sum, and a factor
            if weights[0] != 1:
                solving.factors.update(dict.fromkeys(group.parameters, weights[0]))
            weights = [1.0] * len(weights)
        if weights.count(1.0) == len(weights):
            plain.update(group.parameters)
            ones.update(dict.fromkeys(group.objectives, 1.0))
        else:
            _place(known, dict(zip(group.objectives, weights, strict=True)), group.parameters)
        solving.records[group.name] = group_record(
            group.name,
            group.objectives,
            strategy.name if applied else "plain",
            len(group.parameters),
            row,
            outcome.gap,
            outcome.converged,
            replayed,
        )
    if plain:  # the last pass, since what it goes through is freed with it
        _place(known, ones, plain)
    names, trace = source.losses.names, source.trace
    solving.passes = [([own.get(name, 1.0) for name in names], wanted) for own, wanted in known]
    if trace.trunk_others and trace.features:
        sums, every = [1.0] * len(names), trace.features.keys()
        at = [weights for weights, wanted in solving.passes if every <= wanted.keys()]
        solving.sums = None if at == [sums] else sums
    return len(solving.passes) + (solving.sums is not None)


def _place(
    known: list[tuple[dict[str, float], Named]], weights: dict[str, float], wanted: Named
) -> None:
    """Add a group to the first pass that gives its losses the same weights, else to a new one.

    A pass's weight for a loss that reaches none of its parameters is free.
    """
    for own, parameters in known:
        if all(own.get(name, weight) == weight for name, weight in weights.items()):
            own.update(weights)
            parameters.update(wanted)
            return
    known.append((dict(weights), dict(wanted)))

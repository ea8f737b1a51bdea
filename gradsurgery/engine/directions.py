"""Directions from backward passes of weighted losses, checked, in memory of their own."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.checks import check_losses, read_finite, suspects
from gradsurgery.engine.config import Config
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.history import History
from gradsurgery.engine.parameters import is_parameter
from gradsurgery.engine.scaler import overflow
from gradsurgery.engine.solving import Solving
from gradsurgery.engine.source import GradientSource
from gradsurgery.errors import NonFiniteError, OutOfRangeError, StrategyError
from gradsurgery.gradients.coordinates import called
from gradsurgery.gradients.transfer import to_host
from gradsurgery.record import Record, group_record

Named = dict[str, Tensor]


def values_of(config: Config, source: GradientSource) -> dict[str, float]:
    """The losses' values before any pass, for a strategy that looks at nothing else.

    Raises:
        NonFiniteError: for NaN or inf, without a GradScaler that would skip the step.
    """
    values = source.losses.values(
        to_host((), source.losses.tensors, total=source.communicator.total)
    )
    if config.check and source.scale is None:
        check_losses(values, source.trace.grouping[0], source.losses)
    return values


def from_passes(
    config: Config, source: GradientSource, solving: Solving, retain_graph: bool
) -> tuple[Named, Record]:
    """The direction of each parameter by the passes that `solving` plans.

    Raises:
        NonFiniteError: for NaN or inf, naming the objective and the group.
        OutOfRangeError: the same under a GradScaler.
    """
    trace, losses = source.trace, source.losses
    found: Named = {}
    last = len(solving.passes) - 1
    more = retain_graph or bool(trace.features) or solving.sums is not None
    for i, (weights, wanted) in enumerate(solving.passes):
        found |= source.weighted(weights, wanted, more or i < last)
    if solving.sums is not None:
        more = retain_graph or bool(trace.features)
        solving.at_features = source.weighted(solving.sums, trace.features, more)
    if config.check:
        _check(source, solving, found)
    name, step = config.required.name, solving.history.step
    said = None
    if losses.method is not None:
        count = len(solving.passes) + (solving.sums is not None)
        said = "one pass of the weighted sum" if count == 1 else f"{count} passes of weighted sums"
    if solving.values:
        record = Record(name, solving.values, solving.records, step, method=said)
    else:  # nothing has to come to the host now
        record = Record.deferred(name, *losses.copied(), solving.records, step, said)
    features = {name: found.pop(name) for name in trace.features if name in found}
    if features and solving.sums is None and trace.trunk_others:
        solving.at_features = features
    for name, factor in solving.factors.items():
        if name in found:
            found[name].mul_(factor)
        elif name in features:
            features[name] = features[name] * factor
    return found | features, record


def _check(source: GradientSource, solving: Solving, found: Named) -> None:
    """Losses and gradients are finite; the losses' values come to the host with the answer."""
    losses = source.losses
    names = list(found)
    known = solving.values  # read before the pass, where weights are made of them
    asked = () if known else losses.tensors
    numbers, odd = read_finite(asked, list(found.values()))  # this process's shares
    solving.values = values = known or losses.values(numbers)
    bad = [names[i] for i in odd if names[i] not in source.trace.unchecked]
    if source.scale is not None:
        if bad or not all(map(math.isfinite, values.values())):
            solving.sparse = {n for n, g in found.items() if g.layout != torch.strided}
            raise OutOfRangeError("a loss or gradient has NaN or inf.")
        return
    check_losses(values, solving.groups, losses)
    if bad:
        raise NonFiniteError(suspects(bad, solving.groups, source.trace.reach, losses))


def _not_finite(config: Config, found: Named) -> list[int]:
    """The places of directions with NaN or infinity, if the settings ask."""
    if not config.check:
        return []
    return read_finite((), list(found.values()))[1]


def through_trunk(
    config: Config, source: GradientSource, directions: Named, solving: Solving
) -> Named:
    """The directions with those of the trunk's parameters in place of those at the features.

    Raises:
        OutOfRangeError: when one is not finite, although the gradients at the features are.
    """
    trace = source.trace
    at = {name: d for name, d in directions.items() if name in trace.features}
    out = {name: d for name, d in directions.items() if name not in trace.features}
    sums = solving.at_features
    if not sums:
        sums = {
            name: torch.stack(own).sum(0)
            for name in trace.features
            if (own := [row[name] for row in source.rows if name in row])
        }
    found: Named = {}
    for roots, wanted in ((sums, trace.trunk_others), (at, trace.trunk)):
        if wanted:
            retain = source.retain_graph or wanted is trace.trunk_others
            found |= source.through(roots, trace.trunk_named(wanted), retain)
    parameters = [trace.targets[name] for name in found]
    odd = _not_finite(config, found)
    unchecked = [leaf for leaf in trace.trunk_others if not is_parameter(leaf)]
    odd = [i for i in odd if not any(parameters[i] is leaf for leaf in unchecked)]
    if odd:
        shape = list(parameters[odd[0]].shape)
        raise OutOfRangeError(
            f"the gradient of a parameter of shape {shape} behind the features has NaN or inf. "
            "Nothing was changed."
        )
    return out | found


def of_chunks(
    config: Config, source: GradientSource, solved: Mapping[str, tuple[Group, Outcome]]
) -> Named:
    """Σ wᵢgᵢ for tensors whose gradients were not kept: one pass per distinct vector of weights.

    Args:
        config: the settings.
        source: the step, with its graph.
        solved: for each of them its group and what was decided for it.

    Raises:
        OutOfRangeError: when one is not finite, although its terms are.
    """
    trace, names = source.trace, source.losses.names
    alike: dict[tuple[float, ...], Named] = {}
    for name, (group, outcome) in solved.items():
        if outcome.weights is None or outcome.weights.ndim != 1:
            raise StrategyError(
                "memory='low' and decide_on: the strategy gives no single weight per objective, "
                "with which a backward pass could be made; leave them out."
            )
        given = dict(zip(group.objectives, outcome.weights.tolist(), strict=True))
        weights = tuple(given.get(o, 0.0) for o in names)
        alike.setdefault(weights, {})[name] = trace.tensors[name]
    found: Named = {}
    retain = source.retain_graph or bool(trace.features)
    for i, (row, wanted) in enumerate(alike.items()):
        found |= source.weighted(row, wanted, retain or i + 1 < len(alike))
    order = list(found)
    odd = _not_finite(config, found)
    odd = [i for i in odd if order[i] not in trace.unchecked]
    if odd and not source.grams and source.scale is None:
        bad, groups = [order[i] for i in odd], trace.grouping[0]
        raise NonFiniteError(suspects(bad, groups, trace.reach, source.losses))
    if odd:
        where = called(order[odd[0]], trace.tensors[order[odd[0]]])
        raise OutOfRangeError(
            f"the direction for {where} is not finite in its dtype. Nothing was changed."
        )
    return found


def skipped(
    config: Config, source: GradientSource, solving: Solving
) -> tuple[list[tuple[Tensor, Tensor]], History, Record]:
    """What a GradScaler skips: infinity everywhere, and no step remembered."""
    trace, strategy = source.trace, config.strategy
    name = None if strategy is None else strategy.name
    groups = solving.groups or trace.grouping[0]
    records = {
        g.name: group_record(g.name, g.objectives, name or "plain", len(g.parameters))
        for g in groups
    }
    sparse = {id(trace.tensors[n]) for n in {*source.sparse, *solving.sparse}}
    infinite = overflow(trace.targets.values(), sparse)
    step = solving.history.step
    own = Record(name, solving.values, records, step, overflow=True, method=source.method)
    return infinite, solving.history, own

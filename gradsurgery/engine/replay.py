"""Steps that use the weights of an earlier one: no gradient of a single loss is formed."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.compiled import ONE_PASS
from gradsurgery.engine.grouping import Group, GroupKey
from gradsurgery.engine.on_losses import finish, weighted_pass
from gradsurgery.engine.scene import groups_of
from gradsurgery.engine.solve import Decision, Step
from gradsurgery.errors import InputError, StrategyError
from gradsurgery.record import GroupRecord


def weights_again(
    replay: Mapping[GroupKey, Mapping[str, float]], group: Group, names: Sequence[str]
) -> NDArray[np.float64] | None:
    """The group's weights [n] of an earlier step; None where it then had other objectives."""
    found = replay.get(group.key)
    return (
        np.array([found[name] for name in names])
        if found is not None and set(found) == set(names)
        else None
    )


def weights_to_keep(strategy: Strategy, names: Sequence[str], outcome: Outcome) -> dict[str, float]:
    """The weights of one group, for the steps that follow.

    Raises:
        StrategyError: for weights that are not one number per objective.
    """
    if outcome.weights is None or outcome.weights.ndim != 1:
        raise StrategyError(
            f"every: strategy {strategy.name!r} gives no single weight per objective that could be used again; leave every=1."
        )
    return dict(zip(names, outcome.weights.tolist(), strict=True))


def replayed(step: Step, strategy: Strategy) -> Decision | None:
    """A strategy on groups: one pass for each group of several objectives and one for all others; None where one has no weights from before."""
    losses, scene, memory, plan = step.losses, step.scene, step.memory, step.plan
    assert step.replay is not None
    likely = scene.likely(losses, memory.reach)
    if likely is None:
        return None
    grouping = groups_of(scene, losses, memory, likely)
    passes: list[tuple[NDArray[np.float64], dict[str, Tensor]]] = []
    plain: dict[str, Tensor] = {}
    records = {}
    for group in grouping.groups:
        names = group.objectives
        applied = not group.plain and len(names) >= plan.min_objectives
        weights = weights_again(step.replay, group, names) if applied else np.ones(len(names))
        if weights is None:
            return None
        if applied:
            row = dict(zip(names, weights.tolist(), strict=True))
            passes.append(
                (np.array([row.get(name, 0.0) for name in losses.names]), dict(group.parameters))
            )
        else:
            plain.update(group.parameters)
        records[group.name] = GroupRecord(
            group.name,
            names,
            strategy.name if applied else "plain",
            len(group.parameters),
            weights=weights,
            replayed=applied,
        )
    plain |= {name: scene.parameter(name) for name in scene.met if not grouping.reached[name]}
    if plain:
        passes.append((np.ones(len(losses.names)), plain))
    at_features = scene.cut.features if scene.cut.others else {}
    if at_features:
        passes.append((np.ones(len(losses.names)), dict(at_features)))
    if scene.once and len(passes) > 1:
        raise InputError(ONE_PASS)
    gradients: dict[str, Tensor] = {}
    sums: dict[str, Tensor] | None = None
    for i, (roots, wanted) in enumerate(passes):
        found = weighted_pass(step, roots, wanted, step.retain_graph or i + 1 < len(passes))
        if at_features and i + 1 == len(passes):
            sums = found
        else:
            gradients |= found
    return finish(step, strategy, grouping, gradients, {}, {}, lambda: records, None, sums=sums)

"""Strategies on groups: a Gram matrix and a problem per group, from the gradients of every loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.contract.state import State
from gradsurgery.engine.absent import present, rows_of, spread, warn_if_stopped
from gradsurgery.engine.behind import behind_features
from gradsurgery.engine.checks import (
    OutOfRangeError,
    all_finite,
    check_directions,
    check_finite,
    check_no_rows,
    may_overflow,
)
from gradsurgery.engine.gathered import Gathered, sift
from gradsurgery.engine.grouping import Group, GroupKey
from gradsurgery.engine.history import LOSSES
from gradsurgery.engine.lean import directions_of
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.on_losses import skipped
from gradsurgery.engine.replay import weights_again, weights_to_keep
from gradsurgery.engine.scaler import one_scale
from gradsurgery.engine.scene import groups_of, met_by
from gradsurgery.engine.solve import Decision, Step, protected, solve
from gradsurgery.engine.taps import inputs_of
from gradsurgery.errors import StrategyError
from gradsurgery.gradients.coordinates import (
    as_parameters,
    check_not_sparse,
    in_coordinates,
    narrowed,
)
from gradsurgery.gradients.matrix import Objectives
from gradsurgery.gradients.precision import without_autocast
from gradsurgery.gradients.transfer import to_host
from gradsurgery.record import GroupRecord, Record
from gradsurgery.solvers import is_stationary

NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Part:
    """One group, its objectives in this step, and their gradients.

    `several`: enough objectives for a strategy; `odd`: the names that are seen in real coordinates.
    `places` are the positions of those that the problem is solved for, where others are absent.
    """

    group: Group
    names: tuple[str, ...]
    objectives: Objectives
    several: bool
    odd: frozenset[str] = frozenset()
    places: NDArray[np.intp] | None = None

    @property
    def solved(self) -> tuple[str, ...]:
        """The names of the objectives that the problem is solved for."""
        return self.names if self.places is None else tuple(self.names[i] for i in self.places)

    def without_zeros(self, least: int) -> "Part":
        """The same with objectives of zero gradient absent; a strategy needs `least` others."""
        places = present(self.objectives) if self.several else None
        return (
            self if places is None else replace(self, several=len(places) >= least, places=places)
        )


@dataclass
class Solving:
    """What is decided group by group.

    Attributes:
        step: the step, with the strategy and the losses' values.
        strategy: the strategy; None only looks.
        values: name -> value of each loss.
        fixed: the weights of a strategy that acts on losses.
        replaying: whether the weights are those of an earlier step.
        states: the new state of each group that has one.
        solved: the weights of each group, for steps to come.
    """

    step: Step
    strategy: Strategy | None
    values: dict[str, float]
    fixed: dict[str, float] | None = None
    replaying: bool = False
    states: dict[GroupKey, State] = field(default_factory=dict)
    solved: dict[GroupKey, dict[str, float]] = field(default_factory=dict)

    def begin(self, parts: Sequence[Part]) -> None:
        """All weights are from an earlier step, or none; those of a strategy that acts on losses are known here."""
        step, strategy = self.step, self.strategy
        if strategy is None or strategy.acts_on == "group":
            kept = step.replay
            self.replaying = kept is not None and all(
                weights_again(kept, p.group, p.solved) is not None for p in parts if p.several
            )
            return
        self.replaying = step.replay is not None and set(step.replay.get(LOSSES, ())) == set(
            step.losses.names
        )
        self.fixed = self.solved[LOSSES] = self._of_losses(strategy)

    def _of_losses(self, strategy: Strategy) -> dict[str, float]:
        step = self.step
        if step.replay is not None and self.replaying:
            return dict(step.replay[LOSSES])
        if not all(map(np.isfinite, self.values.values())):  # let through by nonfinite="ignore"
            return dict.fromkeys(step.losses.names, 1.0)
        everything = Group(
            LOSSES, "+".join(step.losses.names), {**step.scene.trained, **step.scene.others}
        )
        outcome, state = solve(
            step,
            strategy,
            self.values if "losses" in strategy.inputs else {},
            everything,
            step.losses.names,
            None,
        )
        if state is not None:
            self.states[everything.key] = state
        assert outcome.weights is not None
        return dict(zip(step.losses.names, outcome.weights.tolist(), strict=True))

    def decide(self, part: Part) -> tuple[Outcome, Strategy | None, bool]:
        """One group's outcome for `solved`, the strategy if applied, and whether all was finite."""
        group, names, objectives = part.group, part.solved, part.objectives
        finite = objectives.finite and all(math.isfinite(self.values[o]) for o in part.names)
        if part.places is not None:
            objectives = objectives.only(rows_of(part.places, objectives))
        protect = (
            self.step.plan.protect
            if self.strategy is not None and finite and len(names) > 1
            else None
        )
        if self.fixed is not None:
            outcome = Outcome(np.array([self.fixed[o] for o in names]))
            harmless = (
                protected(outcome, objectives, names.index(protect))
                if protect is not None and protect in names
                else outcome
            )
            return harmless, self.strategy, finite
        applied = self.strategy if part.several and finite else None
        again = (
            weights_again(self.step.replay, group, names)
            if self.step.replay is not None and self.replaying and applied is not None
            else None
        )
        batches = objectives.batches
        outcome = Outcome(
            np.ones(len(names)) if batches == 1 else np.full((batches, len(names)), 1 / batches)
        )
        if again is not None:
            outcome = Outcome(again)
        elif applied is not None:
            outcome, state = solve(self.step, applied, self.values, group, names, objectives)
            if state is not None:
                check_no_rows(applied, group, self.step.scene.cut.features, state)
                self.states[group.key] = state
            if "zeros" not in self.step.plan.told and part.places is None:
                warn_if_stopped(self.step, applied, self.values, group, names, objectives, outcome)
        if protect is not None and protect in names and not group.plain and again is None:
            outcome = protected(outcome, objectives, names.index(protect))
        if self.step.plan.every > 1 and applied is not None:
            self.solved[group.key] = weights_to_keep(applied, names, outcome)
        return outcome, applied, finite

    def to_keep(self) -> dict[GroupKey, dict[str, float]] | None:
        """The weights that later steps may use again; None to go on with those of an earlier step."""
        if self.replaying:
            return None
        return self.solved if self.step.plan.every > 1 else {}


def settle(
    step: Step, strategy: Strategy | None, gathered: Gathered, use_up: bool = False
) -> Decision:
    """Decide a step from the gradients of every loss; strategy None only looks. With `use_up` directions may be formed in the gradients' memory."""
    with without_autocast(gathered.losses.tensors[0].device):
        return _settle(step, strategy, gathered, use_up)


def _settle(step: Step, strategy: Strategy | None, gathered: Gathered, use_up: bool) -> Decision:
    plan, losses, scene, memory = step.plan, gathered.losses, gathered.scene, step.memory
    gradients, idle = sift(gathered, memory.reach)
    as_seen = not gathered.formed.met and all(
        found.keys() == wanted.keys() for found, wanted in zip(gradients, scene.wanted, strict=True)
    )
    met = scene.met if as_seen else {**met_by(gradients), **gathered.formed.met}
    grouping = groups_of(scene, losses, memory, met)
    use_up = use_up and gradients is gathered.gradients and not scene.cut.features
    parts = [_part(step, strategy, gathered, group, gradients, use_up) for group in grouping.groups]
    values, overflowing = _measure(step, strategy, gathered, parts)
    skip = partial(skipped, scene, strategy, values, memory, grouping.groups, gathered.sparse)
    if overflowing:
        return skip()
    if plan.zero == "absent" and strategy is not None and strategy.needs_gradients:
        parts = [part.without_zeros(plan.min_objectives) for part in parts]

    solving = Solving(step, strategy, values)
    solving.begin(parts)
    directions: dict[str, Tensor] = dict(idle)
    doubtful: list[tuple[str, str, Tensor]] = []
    lean: dict[str, NDArray[np.float64]] = {}
    records: dict[str, GroupRecord] = {}
    try:
        for part in parts:
            outcome, applied, finite = solving.decide(part)
            group, objectives = part.group, part.objectives
            whole = (
                outcome if part.places is None else spread(outcome, part.places, len(part.names))
            )
            if strategy is not None:
                found = (
                    objectives.combine(whole.weights, use_up)
                    if whole.weights is not None
                    else objectives.split(_direction(whole))
                )
                if part.odd:
                    found = as_parameters(found, group.parameters, part.odd)
                narrow = part.odd and narrowed(found)
                if (
                    plan.check
                    and not group.unchecked
                    and (narrow or may_overflow(objectives, whole))
                ):
                    doubtful += [
                        (applied.name if applied is not None else "sum", group.name, d)
                        for d in found
                        if d is not None
                    ]
                directions |= {
                    name: d
                    for name, d in zip(group.parameters, found, strict=True)
                    if d is not None
                }
                if unkept := [name for name in group.parameters if name in gathered.formed.grams]:
                    lean |= dict.fromkeys(unkept, _of_all(losses, part.names, whole))
            gram = objectives.cross.mean((0, 1)) if losses.batches > 1 else objectives.gram
            records[group.name] = GroupRecord(
                group.name,
                part.solved,
                applied.name if applied is not None else "plain",
                len(group.parameters),
                gram if part.places is None else gram[np.ix_(part.places, part.places)],
                outcome.weights if strategy is not None else None,
                outcome.gap,
                outcome.converged,
                partial(is_stationary, eps=objectives.eps) if finite and part.solved else None,
                solving.replaying and applied is not None,
                tuple(name for name in part.names if name not in part.solved)
                if part.places is not None
                else (),
            )
        check_directions(doubtful)
        doubtful.clear()
        if lean:
            directions |= directions_of(step, gathered.formed, lean)
        results = [
            (scene.parameter(name), d)
            for name, d in directions.items()
            if name not in scene.cut.features
        ]
        if strategy is not None and scene.cut.features:
            results += behind_features(scene, directions, gradients, step.retain_graph, plan.check)
    except OutOfRangeError:
        if gathered.scale is None:
            raise
        return skip()
    record = Record(strategy.name if strategy is not None else None, values, records, memory.step)
    reach = grouping.reach
    if unreached := {
        name: frozenset[str]() for name in idle if name not in reach and name in scene.trained
    }:
        reach = {**reach, **unreached}
    return Decision(
        results, memory.advance(reach, solving.states, step.weights, solving.to_keep()), record
    )


def _part(
    step: Step,
    strategy: Strategy | None,
    gathered: Gathered,
    group: Group,
    gradients: Sequence[dict[str, Tensor]],
    use_up: bool,
) -> Part:
    """One group's gradients; with `use_up` taken out of `gradients`, so that nothing else holds them."""
    losses, names, parameters = gathered.losses, group.objectives, list(group.parameters)
    places = [losses.names.index(o) for o in names]
    found = [batch[i] for batch in losses.by_batch(gradients) for i in places]
    rows = [
        [row.pop(name, None) if use_up else row.get(name) for name in parameters] for row in found
    ]
    several = not group.plain and len(names) >= step.plan.min_objectives
    blocks = strategy is not None and "block_grams" in strategy.inputs and several
    if several and gathered.sparse and strategy is not None and strategy.needs_gradients:
        check_not_sparse(gathered.sparse, group.parameters, strategy.name, group.name)
    like, sparse = list(group.parameters.values()), NONE
    odd = gathered.odd and gathered.odd & group.parameters.keys()
    if odd:
        like, sparse = in_coordinates(rows, group.parameters, odd, gathered.taps)
    formed = [(gram, places) for gram in gathered.formed.of(parameters)]
    inputs = inputs_of(parameters, gathered.taps)
    objectives = Objectives(rows, like, blocks, losses.batches, inputs, formed, sparse)
    return Part(group, names, objectives, several, odd)


def _measure(
    step: Step, strategy: Strategy | None, gathered: Gathered, parts: Sequence[Part]
) -> tuple[dict[str, float], bool]:
    """The Gram matrices and the losses' values, in one transfer; whether a GradScaler is to skip the step.

    Raises:
        NonFiniteError: for NaN or inf without a scaler.
    """
    losses, checked = gathered.losses, [part for part in parts if not part.group.unchecked]
    count = len(losses.tensors)
    scales = () if gathered.scale is None else tuple(gathered.scale.reshape(-1).unbind())
    arrived = to_host([part.objectives for part in parts], (*losses.tensors, *scales))
    values = losses.values(arrived[:count])
    if not scales:
        if step.plan.check and not all_finite(values, [part.objectives for part in checked]):
            check_finite(
                values,
                [
                    (
                        p.group.name,
                        p.names,
                        np.diagonal(p.objectives.gram).reshape(losses.batches, -1).max(0),
                    )
                    for p in checked
                ],
            )
        return values, False
    scale = one_scale(arrived[count:])
    if (
        step.plan.check
        and strategy is not None
        and not all_finite(values, [part.objectives for part in checked])
    ):
        return values, True
    for part in parts:
        part.objectives.scale = scale
    return values, False


def _of_all(losses: Losses, names: Sequence[str], outcome: Outcome) -> NDArray[np.float64]:
    """The weight of every loss [n], from those of the losses in `names`."""
    if outcome.weights is None or outcome.weights.ndim != 1:
        raise StrategyError(
            "memory='low': the strategy gives no single weight per objective, with which a backward pass could be made; leave memory='auto'."
        )
    given = dict(zip(names, outcome.weights.tolist(), strict=True))
    return np.array([given.get(o, 0.0) for o in losses.names])


def _direction(outcome: Outcome) -> Tensor:
    assert outcome.direction is not None
    return outcome.direction

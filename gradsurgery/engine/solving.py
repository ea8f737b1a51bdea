"""Solving: what is decided in one step, per group or for all losses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from gradsurgery.contract.inputs import Context
from gradsurgery.contract.outcome import Outcome
from gradsurgery.contract.state import State
from gradsurgery.engine.absent import warn_if_stopped
from gradsurgery.engine.checks import check_no_rows
from gradsurgery.engine.config import Config
from gradsurgery.engine.grouping import Group, GroupKey
from gradsurgery.engine.history import LOSSES, History
from gradsurgery.engine.in_metric import InMetric
from gradsurgery.engine.length import as_long_as_the_sum
from gradsurgery.engine.protect import protected
from gradsurgery.engine.source import GradientSource
from gradsurgery.errors import InputError, NonFiniteError, StrategyError
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.scaled import Scaled, Seen
from gradsurgery.record import GroupRecord
from gradsurgery.types import Array


class Solving:
    """One step's decisions: weights, what is remembered of them, and the groups' records.

    Args:
        config: the settings.
        source: the step's gradients and losses.
        history: what is known from the steps before; it is not changed.
        scores: the user's measure per modality, or None.
        warned: the warnings given so far, each of which is given once.
        guard: what comes after the optimizer's step, as `Surgery.step` says.
        metric: in which problems are solved; None for the Euclidean one.

    Attributes:
        values: name -> value of each loss, as far as they are known.
        groups: the groups, as far as they are known.
        reach: the reach so far with this step's.
        records: the groups' records, in their order.
        passes: where weights are known before gradients: per pass the weight of every loss, and
            the parameters whose gradient it gives.
        factors: parameter -> what that gradient is to be multiplied by, where it is not 1.
        sums: the weights of a pass for the plain sum at the features, where it needs one.
        at_features: the plain sum of the gradients at the features, where it is known.
        sparse: parameters whose gradients are sparse, where a scaler skips the step.
        fixed: the weights of a strategy that acts on losses, by name.
        states: the new state of each group that has one.
        kept: the weights of each group, for steps that use them again.
        replay: the weights of an earlier step that may be used in this one, or None.
        replaying: whether they are.
        matrices: the groups' gradients, where they are kept for what comes after the optimizer.
    """

    def __init__(
        self,
        config: Config,
        source: GradientSource,
        history: History,
        scores: Mapping[str, float] | None,
        warned: set[str],
        guard: str = "off",
        metric: InMetric | None = None,
    ) -> None:
        self.config = config
        self.source = source
        self.history = history
        self.scores = scores
        self.warned = warned
        self.guard = guard
        self.metric = metric
        self.matrices: list[tuple[Group, GradientMatrix]] = []
        self.values: dict[str, float] = {}
        self.groups: list[Group] = []
        self.reach = history.reach
        self.records: dict[str, GroupRecord] = {}
        self.passes: list[tuple[list[float], dict[str, Tensor]]] = []
        self.factors: dict[str, float] = {}
        self.sums: list[float] | None = None
        self.at_features: dict[str, Tensor] = {}
        self.sparse: set[str] = set()
        self.fixed: dict[str, float] | None = None
        self.states: dict[GroupKey, State] = {}
        self.kept: dict[GroupKey, dict[str, float]] = {}
        again = bool(history.replay) and history.replays(config.every)
        self.replay = history.replay if again else None
        self.replaying = False

    def reset(self) -> None:
        """Forget what was decided so far: gradients are needed after all."""
        self.states, self.kept, self.records = {}, {}, {}
        self.passes, self.factors, self.sums = [], {}, None

    def for_losses(self) -> Outcome:
        """Weights [n] of a strategy that acts on losses."""
        names = self.source.losses.names
        again = weights_again(self.replay, LOSSES, names)
        self.replaying = again is not None
        if again is not None:
            outcome = Outcome(again)
        elif all(map(math.isfinite, self.values.values())):
            trace = self.source.trace
            outcome = self.ask(LOSSES, "+".join(names), names, trace.tensors, None)
        else:  # let through by nonfinite="ignore", or for the scaler to see
            outcome = Outcome(np.ones(len(names)))
        if self.config.every > 1:
            self.keep(LOSSES, names, outcome)
        return outcome

    def begin(self, names: Sequence[Sequence[str]]) -> None:
        """Before the groups: weights that do not come from gradients.

        All weights are from an earlier step, or none. Those of a strategy that acts on losses are
        known here.

        Args:
            names: per group the objectives that its problem is solved for.
        """
        config, strategy = self.config, self.config.strategy
        if strategy is None:
            return
        if strategy.acts_on == "losses":
            weights = self.for_losses().weights
            assert weights is not None
            self.fixed = dict(zip(self.source.losses.names, weights.tolist(), strict=True))
        elif self.replay is not None:
            self.replaying = all(
                weights_again(self.replay, group.key, own) is not None
                for group, own in zip(self.groups, names, strict=True)
                if group.several(config.min_objectives, own)
            )

    def for_group(
        self,
        group: Group,
        names: tuple[str, ...],
        matrix: GradientMatrix,
        finite: bool,
        seen: Seen,
    ) -> tuple[Outcome, bool]:
        """Weights or a direction for one group, and whether the strategy is applied.

        Args:
            group: the group.
            names: the objectives that the problem is solved for.
            matrix: their gradients.
            finite: whether all gradients and losses are.
            seen: these as the strategy sees them: in a metric, or the matrix itself.
        """
        config, strategy = self.config, self.config.strategy
        finite = finite and strategy is not None
        several = group.several(config.min_objectives, names)
        guard = finite and len(names) > 1 and config.protect in names
        if self.fixed is not None:
            outcome = Outcome(np.array([self.fixed[o] for o in names]))
            outcome = self._guarded(outcome, names, matrix) if guard else outcome
            return self._sized(outcome, matrix) if several and finite else outcome, True
        m, n = matrix.batches, len(names)
        outcome = Outcome(np.ones(n) if m == 1 else np.full((m, n), 1 / m))
        if not (several and finite):
            guarded = guard and not group.plain
            return self._guarded(outcome, names, seen) if guarded else outcome, False
        again = weights_again(self.replay, group.key, names) if self.replaying else None
        if again is not None:
            outcome = Outcome(again)
        else:
            outcome = self.ask(group.key, group.name, names, group.parameters, seen)
            if group.key in self.states:
                features = self.source.trace.features
                check_no_rows(config.required, group, features, self.states[group.key])
            if seen.some_zero and "zeros" not in self.warned:
                first = partial(self._first_step, group, names, seen)
                own = config.required, group.name, names, seen, outcome
                warn_if_stopped(*own, first, self.warned)
            if guard:
                outcome = self._guarded(outcome, names, seen)
            if isinstance(seen, Scaled):
                outcome = seen.back(outcome)
            outcome = self._sized(outcome, matrix)  # also for the steps that use it again
        if config.every > 1:
            self.keep(group.key, names, outcome)
        return outcome, True

    def _first_step(self, group: Group, names: tuple[str, ...], matrix: Seen) -> Outcome:
        """What the strategy would say in a first step."""
        fresh = replace(self.history, states={}, waiting={}, step=0)
        return self.ask(group.key, group.name, names, group.parameters, matrix, fresh)

    def _guarded(self, outcome: Outcome, names: Sequence[str], matrix: Seen) -> Outcome:
        return protected(outcome, matrix, names.index(self.config.protect))

    def _sized(self, outcome: Outcome, matrix: GradientMatrix) -> Outcome:
        return as_long_as_the_sum(outcome, matrix) if self.config.length else outcome

    def ask(
        self,
        key: GroupKey,
        name: str,
        objectives: tuple[str, ...],
        parameters: Mapping[str, Tensor],
        matrix: Seen | None,
        history: History | None = None,
    ) -> Outcome:
        """Ask the strategy; its new state goes into `states`, which counts if the step stands.

        Args:
            key: what the group's state is kept under.
            name: the group's name.
            objectives: their names.
            parameters: the group's, by name.
            matrix: the gradients, for a strategy that looks at them.
            history: another one than this step's; its state is then not kept.
        """
        strategy, losses = self.config.required, self.source.losses
        past = history or self.history
        values = None
        if self.values and "losses" in strategy.inputs:
            weight = dict(zip(losses.names, losses.weights.tolist(), strict=False))
            values = {o: self.values[o] * weight[o] for o in objectives}
        state = past.state_of(key, parameters) if "state" in strategy.inputs else None
        context = Context(
            objectives,
            name,
            losses.names,
            matrix,
            parameters,
            losses=values,
            observed=past.observed,
            scores=self.scores,
            seed=self.config.seed,
            step=past.step,
            state=state,
        )
        try:
            outcome: Outcome = strategy.decide(context)
        except (InputError, NonFiniteError, StrategyError) as error:
            hint = "" if self.config.zero != "keep" else _zero_hint(objectives, matrix)
            where = f"group {name!r} ({', '.join(objectives)})"
            raise type(error)(f"{where}: {error}{hint}") from error
        if context.state is not None and history is None:
            self.states[key] = context.state
        return outcome

    def keep(self, key: GroupKey, names: Sequence[str], outcome: Outcome) -> None:
        """Remember a group's weights, for the steps that follow.

        Raises:
            StrategyError: for weights that are not one number per objective.
        """
        if outcome.weights is None or outcome.weights.ndim != 1:
            raise StrategyError(
                f"every: strategy {self.config.required.name!r} gives no single weight per "
                "objective that could be used again; leave every=1."
            )
        self.kept[key] = dict(zip(names, outcome.weights.tolist(), strict=True))

    def advanced(self) -> History:
        """The history once the step stands."""
        kept = None if self.replaying else self.kept if self.config.every > 1 else {}
        losses = self.source.losses
        weights = dict(zip(losses.names, losses.weights.tolist(), strict=False))
        return self.history.advance(self.reach, self.states, weights, kept)


def weights_again(
    replay: Mapping[GroupKey, Mapping[str, float]] | None, key: GroupKey, names: Sequence[str]
) -> Array | None:
    """A group's weights [n] of an earlier step; None where it then had other objectives."""
    found = (replay or {}).get(key)
    if found is None or set(found) != set(names):
        return None
    return np.array([found[name] for name in names])


def _zero_hint(objectives: Sequence[str], matrix: Seen | None) -> str:
    """A hint for an error: objectives whose gradient is zero can be left out by a setting."""
    if matrix is None:
        return ""
    zero = [repr(o) for o, none in zip(objectives, matrix.zero, strict=True) if none]
    if not zero:
        return ""
    return (
        f" (The gradient of {', '.join(zero)} is zero: leave it out of losses in that step, or use "
        "Surgery(..., zero='absent').)"
    )

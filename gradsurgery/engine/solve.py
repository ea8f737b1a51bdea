"""One step's circumstances, and a strategy asked for one group's weights or direction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.inputs import Context
from gradsurgery.contract.outcome import Outcome
from gradsurgery.contract.state import State
from gradsurgery.engine.grouping import Group, GroupKey
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.scene import Plan, Scene
from gradsurgery.errors import InputError, NonFiniteError, StrategyError
from gradsurgery.gradients.matrix import Objectives
from gradsurgery.record import Record
from gradsurgery.solvers import without_conflict


@dataclass(frozen=True)
class Call:
    """What `Surgery.backward` was given beside the losses."""

    scores: Mapping[str, float] | None = None
    retain_graph: bool = False
    scaler: Any = None
    features: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Step:
    """What one step is made of, before anything is decided; `scale` is the GradScaler's factor, `replay` the weights to use again."""

    plan: Plan
    losses: Losses
    scene: Scene
    memory: History
    scores: Mapping[str, float] | None
    retain_graph: bool
    scale: Tensor | None = None
    replay: Mapping[GroupKey, Mapping[str, float]] | None = None

    @property
    def weights(self) -> dict[str, float]:
        """The user's own weight of each loss."""
        return dict(zip(self.losses.names, self.losses.weights.tolist(), strict=False))


@dataclass(frozen=True)
class Decision:
    """What a step would write, what it would remember, and its Record."""

    results: list[tuple[Tensor, Tensor]]
    memory: History
    record: Record


def solve(
    step: Step,
    strategy: Strategy,
    values: dict[str, float],
    group: Group,
    names: tuple[str, ...],
    objectives: Objectives | None,
) -> tuple[Outcome, State | None]:
    """Ask the strategy; its state comes back changed, as a copy that is kept only if the step stands."""
    memory, losses = step.memory, None
    if values and "losses" in strategy.inputs:
        weight = step.weights
        losses = {name: values[name] * weight[name] for name in names}
    context = Context(
        names,
        group.name,
        step.losses.names,
        objectives,
        group.parameters,
        losses=losses,
        observed=memory.observed,
        scores=step.scores,
        seed=step.plan.seed,
        step=memory.step,
        state=memory.state_of(group.key, group.parameters) if "state" in strategy.inputs else None,
    )
    try:
        outcome = strategy.decide(context)
    except (InputError, NonFiniteError, StrategyError) as error:
        raise type(error)(
            f"group {group.name!r} ({', '.join(names)}): {error}{_absent(step, names, objectives)}"
        ) from error
    return outcome, context.state


def _absent(step: Step, names: tuple[str, ...], objectives: Objectives | None) -> str:
    """A hint for an error: objectives whose gradient is zero can be left out by a setting."""
    if objectives is None or step.plan.zero != "keep":
        return ""
    zero = [name for name, none in zip(names, objectives.zero, strict=True) if none]
    if not zero:
        return ""
    return f" (The gradient of {', '.join(map(repr, zero))} is zero: leave it out of losses in that step, or use Surgery(..., zero='absent').)"


def protected(outcome: Outcome, objectives: Objectives, index: int) -> Outcome:
    """The outcome without its harm to one objective."""
    if outcome.weights is not None:
        grams = objectives.gram if outcome.weights.ndim == 1 else objectives.block_grams
        return Outcome(
            without_conflict(outcome.weights, grams, index), None, outcome.gap, outcome.converged
        )
    assert outcome.direction is not None
    gradient = objectives.rows[index]
    along, square = (
        float(torch.dot(a.double(), gradient.double())) for a in (outcome.direction, gradient)
    )
    return (
        outcome
        if along >= 0 or square == 0
        else Outcome(None, outcome.direction - (along / square) * gradient)
    )

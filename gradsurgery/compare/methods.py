"""What is trained under a label: a strategy, its settings, and on which losses."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from gradsurgery import Strategy, get_strategy

ALONE = "alone: "
LENGTH = ", length=sum"
GUARD = ", guard=correct"
TIMES_N = "n x "
SUM = "sum"
Guard = Literal["report", "correct", "off"]  # of `Surgery.step`


@dataclass(frozen=True)
class Method:
    """One row of a comparison, before it is trained.

    Attributes:
        label: what rows call it.
        strategy: what combines the gradients.
        kind: of its rows: "run" where it was asked for, "control" or "alone" where it is a
            baseline.
        only: the losses it is trained on; None is all of them.
        settings: of `Surgery`.
        guard: of `Surgery.step`; "off" is `backward` and the optimizer's step.
    """

    label: str
    strategy: Strategy
    kind: str = "run"
    only: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    guard: Guard = "off"


def control(label: str) -> Method:
    """The method that a label of a baseline stands for.

    "S, length=sum" is the strategy S at the length of the sum of the gradients. "n x S" has the
    direction of S times the number of objectives of the group. "S, guard=correct" corrects the
    optimizer's steps where they raise an objective. Other labels are strategies.

    Example:
        >>> from gradsurgery.compare.methods import control
        >>> control("mgda, length=sum").settings
        {'length': 'sum'}
        >>> control("n x mgda").strategy.weights([[1.0, 0.0], [0.0, 1.0]]).tolist()
        [1.0, 1.0]
    """
    if label.endswith(LENGTH):
        plain = get_strategy(label.removesuffix(LENGTH))
        return Method(label, plain, "control", settings={"length": "sum"})
    if label.endswith(GUARD):
        plain = get_strategy(label.removesuffix(GUARD))
        return Method(label, plain, "control", guard="correct")
    if label.startswith(TIMES_N):
        return Method(label, _times_n(get_strategy(label.removeprefix(TIMES_N))), "control")
    return Method(label, get_strategy(label), "control")


def alone(name: str, losses: Sequence[str]) -> Method:
    """The plain sum of these losses, and of no others."""
    return Method(ALONE + name, get_strategy(SUM), "alone", tuple(losses))


def method_of(
    asked: Mapping[str, Strategy], label: str, only: Sequence[str] | None = None
) -> Method:
    """The method of a label: one that was asked for, or a baseline."""
    if only is not None:
        return alone(label.removeprefix(ALONE), only)
    return Method(label, asked[label]) if label in asked else control(label)


def _times_n(strategy: Strategy) -> Strategy:
    """The conventional Pareto baseline of MMPareto (arXiv:2405.17730): n times the direction."""
    plain: Callable[..., Any] = strategy.function

    @functools.wraps(plain)  # whose signature is the contract
    def scaled(*inputs: Any, **options: Any) -> Any:
        found = plain(*inputs, **options)
        value = getattr(found, "value", None)  # of a solution, with its gap
        if value is None:
            return len(found) * np.asarray(found)
        return replace(found, value=len(value) * value)

    return replace(
        strategy, name=TIMES_N + strategy.name, function=scaled, scale="sum", claims=(), variants=()
    )

"""Everything finite, or an error that names the objective and the group."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.contract.state import State
from gradsurgery.engine.grouping import Group, Grouping
from gradsurgery.engine.losses import Losses, named_values
from gradsurgery.errors import InputError, NonFiniteError, StrategyError, nearest, one_of, warn
from gradsurgery.gradients.matrix import Objectives
from gradsurgery.gradients.transfer import to_host

Array = NDArray[np.float64]
WIDE = (torch.float32, torch.float64)
LEAST_RANGE = torch.finfo(torch.float16).max / 2


class OutOfRangeError(NonFiniteError):
    """Something that became infinite on the way from finite gradients: an error, or under a GradScaler an overflow like others."""


def values_of(losses: Losses) -> dict[str, float]:
    return losses.values(to_host((), losses.tensors))


def values_later(losses: Losses) -> Callable[[], dict[str, float]]:
    """`values_of` for whoever asks: from copies, since losses may be changed in place, and without their graph."""
    plain = [loss.detach() for loss in losses.tensors]
    alike = all(loss.dtype == plain[0].dtype and loss.ndim == 0 for loss in plain)
    copies = (
        torch.stack(plain) if alike else torch.stack([loss.reshape(()).double() for loss in plain])
    )
    names, batches = losses.names, losses.batches
    return lambda: named_values(names, batches, copies.tolist())


def check_finite(
    values: dict[str, float], squares: list[tuple[str, tuple[str, ...], Array]]
) -> None:
    """The losses, and per group the squared norm of each objective's gradient [n]."""
    for objective, value in values.items():
        if not math.isfinite(value):
            where = ", ".join(repr(g) for g, names, _ in squares if objective in names)
            raise NonFiniteError(
                f"loss {objective!r} is {value}; it reaches the group {where}. Nothing was changed."
            )
    bad = [
        (group, o)
        for group, names, found in squares
        for o, square in zip(names, found, strict=True)
        if not np.isfinite(square)
    ]
    if bad:
        text = "; ".join(f"objective {o!r} in group {group!r}" for group, o in bad)
        raise NonFiniteError(
            f"the gradient has NaN or inf (or squares that overflow float64): {text}. Nothing was changed."
        )


def read_finite(losses: Losses, gradients: Sequence[Tensor]) -> tuple[list[float], list[int]]:
    """The losses' values and the positions of gradients with a NaN or an infinity, in one transfer."""
    return _read(losses.tensors, gradients)


def not_finite(gradients: Sequence[Tensor]) -> list[int]:
    """The positions of gradients with a NaN or an infinity, in one transfer."""
    return _read((), gradients)[1]


@torch.no_grad()
def _read(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[list[float], list[int]]:
    """A sum is the cheapest read that NaN and infinity survive; one that only overflows is looked at again."""
    totals = [g.sum() if g.dtype in WIDE else _total(g) for g in gradients]
    arrived = to_host((), (*values, *totals))
    odd = [i for i, total in enumerate(arrived[len(values) :]) if not math.isfinite(total)]
    return arrived[: len(values)], [i for i in odd if not _all_finite(gradients[i])]


def _values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient: of a sparse one the entries, of a complex one both parts."""
    values = gradient._values() if gradient.layout == torch.sparse_coo else gradient
    if values.is_complex():
        return torch.view_as_real(values.resolve_conj().resolve_neg())
    return values


def _total(gradient: Tensor) -> Tensor:
    values = _values(gradient)
    return values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32)


def _all_finite(gradient: Tensor) -> bool:
    values = _values(gradient)
    return bool(torch.isfinite(values.float() if values.dtype.itemsize == 1 else values).all())


def all_finite(values: dict[str, float], groups: Iterable[Objectives]) -> bool:
    return all(map(math.isfinite, values.values())) and all(group.finite for group in groups)


def check_losses(values: dict[str, float], groups: Sequence[Group]) -> None:
    if not all(map(math.isfinite, values.values())):
        check_finite(values, [(g.name, g.objectives, np.zeros(len(g.objectives))) for g in groups])


def suspects(bad: list[str], grouping: Grouping, losses: Losses) -> str:
    """After one pass of the sum only the reach tells which loss a NaN came from: one that reaches every bad parameter."""
    reached = grouping.reached
    where = [g.name for g in grouping.groups if any(name in g.parameters for name in bad)]
    common = [o for o in losses.names if all(o in reached[name] for name in bad)]
    common = common or [o for o in losses.names if any(o in reached[name] for name in bad)]
    one = (
        f"objective {common[0]!r}"
        if len(common) == 1
        else "one of the objectives " + ", ".join(map(repr, common))
    )
    return f"the gradient of {one} in group {', '.join(map(repr, where))} has NaN or inf. Nothing was changed."


def check_form(strategy: Strategy | None, losses: Losses) -> None:
    """One batch, or several for a strategy that takes Grams between them.

    Raises:
        StrategyError: when the losses are not given in the form that the strategy takes.
    """
    if strategy is not None and ("cross" in strategy.inputs) != (losses.batches > 1):
        if losses.batches > 1:
            raise StrategyError(
                f"strategy {strategy.name!r} takes the losses of one batch, a dict; got a list of {losses.batches} dicts."
            )
        raise StrategyError(
            f"strategy {strategy.name!r} takes losses of independent batches: surgery.backward([losses_1, losses_2, losses_3]), one dict of all losses each."
        )


def check_named(what: str, name: str, losses: tuple[str, ...]) -> None:
    """An option names an objective: a misspelt name is an error, one that no loss has yet a warning, since losses may come.

    Raises:
        InputError: when a loss has nearly that name.
    """
    if name in losses:
        return
    if nearest(name, losses) is not None:
        raise InputError(f"{what}: " + one_of("objective", name, losses))
    warn(
        f"{what}: no loss is named {name!r} yet (there are {', '.join(map(repr, losses))}); it counts from the step in which one is."
    )


def may_overflow(objectives: Objectives, outcome: Outcome) -> bool:
    """Whether a direction may leave the range of its dtype although gradients and weights are finite."""
    if outcome.weights is None:
        return True
    weights = np.reshape(outcome.weights, -1) if objectives.batches > 1 else outcome.weights
    size = objectives.bound(weights)
    return not (
        size <= LEAST_RANGE
        or all(size <= torch.finfo(dtype).max / 2 for dtype in {t.dtype for t in objectives.like})
    )


def check_directions(directions: Sequence[tuple[str, str, Tensor]]) -> None:
    """Of (strategy, group, direction) those that are not finite after all.

    Raises:
        OutOfRangeError: for the first of them.
    """
    if odd := not_finite([d for _, _, d in directions]) if directions else []:
        strategy, group, _ = directions[odd[0]]
        raise OutOfRangeError(
            f"the direction of strategy {strategy!r} in group {group!r} is not finite in the parameters' dtype. Nothing was changed."
        )


def check_scores(strategy: Strategy, scores: Mapping[str, float], groups: Iterable[str]) -> None:
    """Scores that no group's modality has do nothing.

    Raises:
        InputError: for one that is nearly the name of a modality without a score.
    """
    named = strategy.options.get("modality") or {}
    modalities = {named.get(group, group) for group in groups}
    for name in scores:
        near = nearest(name, modalities - set(scores), cutoff=0.8)
        if name not in modalities and near is not None:
            raise InputError("scores: " + one_of("modality", name, sorted(modalities)))
    if modalities.isdisjoint(scores):
        warn(
            f"scores: none of {', '.join(map(repr, scores))} is the modality of a group (the groups are {', '.join(map(repr, groups))}): nothing is "
            f"modulated. Say which group is which: get_strategy({strategy.name!r}, modality={{group: modality}})."
        )


def check_no_rows(
    strategy: Strategy, group: Group, features: Mapping[str, Tensor], state: State
) -> None:
    """Gradients at the features belong to the examples of one batch.

    Raises:
        InputError: for a strategy that keeps gradients from step to step.
    """
    if state.has_rows and not features.keys().isdisjoint(group.parameters):
        raise InputError(
            f"features: strategy {strategy.name!r} keeps gradients between steps, and those at the features are of other examples each time."
        )

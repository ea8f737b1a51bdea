"""Everything finite, or an error that names the objective and the group."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.outcome import Outcome
from gradsurgery.contract.state import State
from gradsurgery.engine.config import Config
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.scaler import one_scale
from gradsurgery.engine.source import GradientSource
from gradsurgery.errors import (
    InputError,
    NonFiniteError,
    OutOfRangeError,
    StrategyError,
    nearest,
    one_of,
    warn,
)
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.transfer import to_host
from gradsurgery.types import Array

WIDE = {torch.float32, torch.float64}
SMALL = 1 << 15  # entries up to which gradients are copied, to be summed together
_flatten: Callable[[Sequence[Tensor]], Tensor] = torch._utils._flatten_dense_tensors
LEAST_RANGE = torch.finfo(torch.float16).max / 2


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
            f"the gradient has NaN or inf (or squares that overflow float64): {text}. Nothing was "
            "changed."
        )


def read_finite(
    values: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[list[float], list[int]]:
    """Some scalars, and the positions of gradients with NaN or infinity, in one transfer.

    They are those of this process; where several take part, `publish` says what others found.

    A sum is the cheapest read that NaN and infinity survive. Where all gradients are small they are
    summed together: a call per gradient would cost more than their entries. Where a sum is not
    finite the gradients are read again, since it may only overflow.
    """
    few = sum([g.numel() for g in gradients]) <= SMALL
    kinds = {(g.dtype, g.layout, g.device) for g in gradients} if few else ()
    if len(kinds) == 1 and all(k[0] in WIDE and k[1] is torch.strided for k in kinds):
        totals = [_flatten(gradients).sum()]
    else:
        totals = [g.sum() if g.dtype in WIDE else _total(g) for g in gradients]
    arrived = to_host((), (*values, *totals))
    count = len(values)
    if all(map(math.isfinite, arrived[count:])):
        return arrived[:count], []
    odd = to_host((), [torch.logical_not(_all_finite(g)).float() for g in gradients])
    return arrived[:count], [i for i, number in enumerate(odd) if number]


def _values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient: of a sparse one the entries, of a complex one both parts."""
    values = gradient._values() if gradient.layout == torch.sparse_coo else gradient
    if values.is_complex():
        return torch.view_as_real(values.resolve_conj().resolve_neg())
    return values


def _total(gradient: Tensor) -> Tensor:
    values = _values(gradient)
    return values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32)


def _all_finite(gradient: Tensor) -> Tensor:
    values = _values(gradient)
    return torch.isfinite(values.float() if values.dtype.itemsize == 1 else values).all()


def total_values(source: GradientSource, matrices: Sequence[GradientMatrix]) -> dict[str, float]:
    """The Gram matrices and the losses' values, in one transfer per device."""
    losses, count = source.losses, len(source.losses.tensors)
    scales = () if source.scale is None else tuple(source.scale.reshape(-1).unbind())
    arrived = to_host(matrices, losses.tensors, scales, source.communicator.total)
    if scales:
        scale = one_scale(arrived[count:])
        for matrix in matrices:
            matrix.scale = scale
    return losses.values(arrived[:count])


def check_values(
    source: GradientSource,
    values: dict[str, float],
    groups: Sequence[Group],
    matrices: Sequence[GradientMatrix],
) -> None:
    """The losses and the gradients of all groups.

    Raises:
        NonFiniteError: for NaN or inf, naming the objective and the group.
        OutOfRangeError: for those under a GradScaler, which then skips the step.
    """
    checked = [(g, m) for g, m in zip(groups, matrices, strict=True) if not g.unchecked]
    if all(map(math.isfinite, values.values())) and all(m.finite for _, m in checked):
        return
    if source.scale is not None:
        raise OutOfRangeError("a loss or gradient has NaN or inf.")
    check_examples_finite(source.losses)
    if source.losses.origin is not None:
        sizes = [own for m in source.mixed.values() if (own := m.use.bounds()) is not None]
        if said := source.losses.origin.of_gradients(sizes):
            raise NonFiniteError(said)
    squares = [
        (g.name, g.objectives, np.diagonal(m.gram).reshape(source.losses.batches, -1).max(0))
        for g, m in checked
    ]
    check_finite(values, squares)


def check_losses(values: dict[str, float], groups: Sequence[Group], losses: Losses) -> None:
    if not all(map(math.isfinite, values.values())):
        check_examples_finite(losses)
        check_finite(values, [(g.name, g.objectives, np.zeros(len(g.objectives))) for g in groups])


def check_examples_finite(losses: Losses) -> None:
    """Of mixtures the losses by example.

    Raises:
        NonFiniteError: naming examples, and the objectives that have a weight there.
    """
    if losses.origin is not None and (said := losses.origin.of_losses()):
        raise NonFiniteError(said)


def suspects(bad: list[str], groups: Sequence[Group], reach: Reach, losses: Losses) -> str:
    """Which loss a NaN came from, after one pass of the sum: one that reaches every bad parameter.

    Only the reach tells then.
    """
    where = [g.name for g in groups if any(name in g.parameters for name in bad)]
    reached = [reach[name] for name in bad]
    common = [o for o in losses.names if all(o in found for found in reached)]
    common = common or [o for o in losses.names if any(o in found for found in reached)]
    if len(common) == 1:
        one = f"objective {common[0]!r}"
    else:
        one = "one of the objectives " + ", ".join(map(repr, common))
    groups_named = ", ".join(map(repr, where))
    return f"the gradient of {one} in group {groups_named} has NaN or inf. Nothing was changed."


def check_call(config: Config, losses: Losses, features: Mapping[str, Tensor] | None) -> None:
    """The losses have the form that the strategy takes.

    Raises:
        StrategyError: for one batch where the strategy takes several, and the reverse.
        InputError: for features of several batches.
    """
    strategy: Strategy | None = config.strategy
    if strategy is not None and ("cross" in strategy.inputs) != (losses.batches > 1):
        if losses.batches > 1:
            raise StrategyError(
                f"strategy {strategy.name!r} takes the losses of one batch, a dict; got a list of "
                f"{losses.batches} dicts."
            )
        raise StrategyError(
            f"strategy {strategy.name!r} takes losses of independent batches: "
            "surgery.backward([losses_1, losses_2, losses_3]), one dict of all losses each."
        )
    if features is not None and losses.batches > 1:
        raise InputError(
            "features: losses of several batches have features of several batches; leave features "
            "out."
        )


def check_options(config: Config, losses: Losses, history: History) -> None:
    """Before a first step: options name objectives, of which any process may have the losses.

    Raises:
        InputError: for an option that nearly names a loss.
    """
    if history.step:
        return
    named = {} if config.strategy is None else dict(config.strategy.named_objectives)
    if config.protect is not None:
        named["protect"] = config.protect
    for what, name in named.items():
        check_named(what, name, losses.names)


def check_named(what: str, name: str, losses: tuple[str, ...]) -> None:
    """An option names an objective.

    A misspelt name is an error; one that no loss has yet a warning, since losses may come.

    Raises:
        InputError: when a loss has nearly that name.
    """
    if name in losses:
        return
    if nearest(name, losses) is not None:
        raise InputError(f"{what}: " + one_of("objective", name, losses))
    warn(
        f"{what}: no loss is named {name!r} yet (there are {', '.join(map(repr, losses))}); it "
        "counts from the step in which one is."
    )


def may_overflow(matrix: GradientMatrix, outcome: Outcome) -> bool:
    """Whether a direction of finite gradients and weights may leave the range of its dtype."""
    if outcome.weights is None:
        return True
    weights = np.reshape(outcome.weights, -1) if matrix.batches > 1 else outcome.weights
    size = matrix.bound(weights)
    return not (
        size <= LEAST_RANGE
        or all(size <= torch.finfo(dtype).max / 2 for dtype in {t.dtype for t in matrix.like})
    )


def check_directions(directions: Sequence[tuple[str, str, Tensor]]) -> None:
    """Of (strategy, group, direction) those that are not finite after all, in this process.

    Raises:
        OutOfRangeError: for the first of them.
    """
    if odd := read_finite((), [d for _, _, d in directions])[1] if directions else []:
        strategy, group, _ = directions[odd[0]]
        raise OutOfRangeError(
            f"the direction of strategy {strategy!r} in group {group!r} is not finite in the "
            "parameters' dtype. Nothing was changed."
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
            f"scores: none of {', '.join(map(repr, scores))} is the modality of a group (the "
            f"groups are {', '.join(map(repr, groups))}): nothing is modulated. Say which group is "
            f"which: get_strategy({strategy.name!r}, modality={{group: modality}})."
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
            f"features: strategy {strategy.name!r} keeps gradients between steps, and those at the "
            "features are of other examples each time."
        )

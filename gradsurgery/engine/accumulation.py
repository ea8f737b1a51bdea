"""Gradients gathered over micro-batches: stored sources, added loss by loss."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gradsurgery.engine.checks import check_examples_finite, read_finite
from gradsurgery.engine.converted import kind_of
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.gradients.coordinates import called, unusual
from gradsurgery.gradients.donation import as_owned


def stored(source: GradientSource) -> GradientSource:
    """The same without graph, with gradients that nothing else holds, for others to be added."""
    kept: list[dict[str, Tensor]] = []
    for found in source.rows:
        names, gradients = list(found), list(found.values())
        found.clear()  # so that one list holds each
        own = as_owned(gradients, [source.trace.forms[name] for name in names])
        kept.append({name: g for name, g in zip(names, own, strict=True) if g is not None})
    reached = set().union(*kept)
    new = GradientSource(
        source.trace, source.losses.detached(), source.communicator, scale=source.scale
    )
    new.rows, new.odd, new.sparse = kept, source.odd, source.sparse
    new.kinds = {name: kind_of(t) for name, t in source.trace.tensors.items() if name in reached}
    return new


def add(
    before: GradientSource | None, new: GradientSource
) -> tuple[GradientSource, list[Tensor], list[Tensor]]:
    """The sum of two, once `torch._foreach_add_` has added the second list to the first.

    The first list are gradients of `before`, which go on as those of the sum.

    Raises:
        InputError: when the user's weights differ, or only one came through a GradScaler.
    """
    if before is None:
        return stored(new), [], []
    check_still_given("accumulate", before.trace, new.trace.tensors)
    if (before.scale is None) != (new.scale is None):
        raise InputError(
            "accumulate: give the scaler for all micro-batches of a step, or for none."
        )
    old, own = before.losses, new.losses.detached()  # no graph is held on to
    weights = dict(zip(old.names, old.weights.tolist(), strict=True))
    for name, weight in zip(own.names, own.weights.tolist(), strict=True):
        if weights.setdefault(name, weight) != weight:
            raise InputError(
                f"accumulate: the weight of loss {name!r} was {weights[name]} and is {weight} now; "
                "it is one number per step."
            )
    names = (*old.names, *(name for name in own.names if name not in old.names))
    values = dict(zip(old.names, old.tensors, strict=True))
    for name, value in zip(own.names, own.tensors, strict=True):
        values[name] = values[name] + value if name in values else value
    rows = dict(zip(old.names, (dict(found) for found in before.rows), strict=True))
    totals: list[Tensor] = []
    terms: list[Tensor] = []
    new = stored(new)
    for name, found in zip(own.names, new.rows, strict=True):
        row = rows.setdefault(name, {})
        for parameter, gradient in found.items():
            if parameter in row and not _alike(row[parameter], gradient):
                row[parameter] = _sum(row[parameter], gradient)
            elif parameter in row:
                totals.append(row[parameter])
                terms.append(gradient)
            else:
                row[parameter] = gradient
    both = np.array([weights[name] for name in names])
    said = own.method if old.method is None else old.method
    losses = Losses(names, tuple(values[name] for name in names), both, method=said)
    trace = before.trace.joined(new.trace)
    total = GradientSource(
        trace, losses, new.communicator, scale=_both_scales(before.scale, new.scale)
    )
    total.rows = [rows[name] for name in names]
    total.parts = before.parts + 1
    total.odd, total.sparse = unusual(total.rows, trace.tensors)
    total.kinds = {**before.kinds, **new.kinds}
    return total, totals, terms


def _alike(total: Tensor, term: Tensor) -> bool:
    """Whether the second can be added to the first in place."""
    dense = total.layout == term.layout == torch.strided
    return dense and total.dtype == term.dtype and total.dtype.itemsize > 1


def _sum(total: Tensor, term: Tensor) -> Tensor:
    """Their sum in a new tensor, dense unless both are sparse; that of float8 through float32."""
    first, second = (term, total) if total.layout != torch.strided else (total, term)
    if min(first.dtype.itemsize, second.dtype.itemsize) == 1:
        return (first.float() + second.float()).to(first.dtype)
    return first + second


def check_still_given(where: str, trace: Trace, now: Mapping[str, Tensor]) -> None:
    """A name stands for the tensor whose gradient was gathered under it.

    Raises:
        InputError: when it stands for another one now.
    """
    for name, tensor in trace.trained.items():
        if now.get(name, tensor) is not tensor:
            raise InputError(
                f"{where}: parameter {name!r} is another tensor than the one whose gradient was "
                "accumulated before, because its layer was replaced. Replace layers between steps: "
                "call discard() and accumulate the micro-batches of this step again."
            )


def check_gathered(source: GradientSource) -> None:
    """Everything finite.

    Raises:
        NonFiniteError: naming the loss, and the parameter whose gradient is not.
    """
    losses = source.losses
    places = [
        (loss, name, g)
        for loss, found in zip(losses.names, source.rows, strict=True)
        for name, g in found.items()
    ]
    values, bad = read_finite(losses.tensors, [g for _, _, g in places])
    for name, value in zip(losses.names, values, strict=True):
        if not np.isfinite(value):
            check_examples_finite(losses)
            raise NonFiniteError(f"loss {name!r} is {value}. Nothing was added.")
    for loss, name, _ in (places[i] for i in bad if places[i][1] not in source.trace.unchecked):
        where = called(name, source.trace.tensors[name])
        what = f"the gradient of objective {loss!r} for {where} has NaN or inf"
        raise NonFiniteError(f"{what}. Nothing was added.")


def _both_scales(before: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Both scales in one tensor, so that no value has to come to the host now.

    They are compared in `combine`.
    """
    if before is None or new is None:
        return None
    return torch.cat([before.reshape(-1), new.reshape(-1)])

"""The gradients of N batches at frozen weights, kept as their sums and inner products."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradsurgery.diagnostics.frozen import Buffers, random_state, set_random_state
from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.types import Array

LossFunction = Callable[[Any, Any], Any]
Rows = list[list[Tensor | None]]  # [n][parameters]: the gradient of each objective


@dataclass(frozen=True)
class Moments:
    """What N batches say of one group, without a gradient in it.

    Attributes:
        name: the group's name.
        objectives: the n objectives that reach it.
        parameters: how many parameter tensors it has.
        grams: [N, n, n], ⟨gᵢ, gⱼ⟩ of each batch.
        next: [N − 1, n, n], ⟨gᵢ, gⱼ⟩ with gᵢ of one batch and gⱼ of the batch after it.
        total: [n, n], ⟨Sᵢ, Sⱼ⟩ of the sums S over the batches.
        against: [N, n, n], ⟨Sᵢ, gⱼ⟩ with gⱼ of each batch.
    """

    name: str
    objectives: tuple[str, ...]
    parameters: int
    grams: Array
    next: Array
    total: Array
    against: Array


def gather(
    model: nn.Module,
    batches: Sequence[Any],
    losses: LossFunction,
    groups: Mapping[str, Sequence[nn.Parameter]] | None,
    parameters: Sequence[nn.Parameter],
    buffers: Buffers,
) -> tuple[list[Moments], dict[str, float]]:
    """Two passes over the batches: sums and Gram matrices, then each batch against the sums.

    At any time there are about three gradients per objective in memory, whatever N is.

    Args:
        model: given to `losses`.
        batches: the N batches.
        losses: (model, batch) -> losses.
        groups: name -> parameters, or None for groups by reach.
        parameters: all parameters that count.
        buffers: restored before each batch, so that no batch depends on the one before.

    Returns:
        The moments of each group that two or more objectives reach; name -> mean loss.

    Raises:
        InputError: for losses that cannot be used, or that differ from batch to batch.
        NonFiniteError: for a loss or gradient that is not finite, naming the objective.
    """
    names: tuple[str, ...] = ()
    states, values, grams, following = [], [], [], []
    sums: Rows = []
    before: Rows = []
    for number, batch in enumerate(batches):
        buffers.restore()
        states.append(random_state())
        own, value, rows = _gradients(model, batch, losses, parameters, number)
        names = names or own
        if own != names:
            raise InputError(
                f"losses gave {', '.join(own)} for batch {number}, and {', '.join(names)} before: "
                "return the same objectives for every batch."
            )
        values.append(value)
        grams.append(_products(rows, rows))
        if before:
            following.append(_products(before, rows))
        sums = _added(sums, rows)
        before = rows
    del before
    parts = _groups(names, sums, groups, parameters)
    inner, whole = np.array(grams), _products(sums, sums)
    ahead = np.array(following)
    against = []
    for number, (batch, state) in enumerate(zip(batches, states, strict=True)):
        buffers.restore()
        set_random_state(state)
        _, again, rows = _gradients(model, batch, losses, parameters, number)
        if not np.allclose(again, values[number], rtol=1e-3, atol=1e-6):
            raise InputError(
                f"losses gave {again} and then {values[number]} for the same batch and weights: "
                "draw random numbers from torch, numpy or random, whose states are repeated."
            )
        against.append(_products(sums, rows))
    crossed = np.array(against)
    found = []
    for name, (objectives, places) in parts.items():
        at = np.ix_(objectives, objectives)
        pick = [x[..., places, :, :].sum(-3)[(..., *at)] for x in (inner, ahead, whole, crossed)]
        chosen = tuple(names[i] for i in objectives)
        found.append(Moments(name, chosen, len(places), *pick))
    return found, dict(zip(names, np.mean(values, 0).tolist(), strict=True))


def _gradients(
    model: nn.Module,
    batch: Any,
    losses: LossFunction,
    parameters: Sequence[nn.Parameter],
    number: int,
) -> tuple[tuple[str, ...], list[float], Rows]:
    """The names, values and gradients of the losses on one batch."""
    with torch.enable_grad():
        named = _named(losses(model, batch), number)
        rows: Rows = []
        for place, (name, loss) in enumerate(named.items()):
            if not torch.isfinite(loss.detach()):
                raise NonFiniteError(f"the loss {name!r} is {loss.item()} on batch {number}.")
            if not loss.requires_grad:
                rows.append([None] * len(parameters))
                continue
            more = place < len(named) - 1
            found = torch.autograd.grad(loss, parameters, retain_graph=more, allow_unused=True)
            rows.append([None if g is None else _flat(g) for g in found])
            if not all(bool(g.isfinite().all()) for g in rows[-1] if g is not None):
                raise NonFiniteError(f"the gradient of {name!r} is not finite on batch {number}.")
    return tuple(named), [loss.item() for loss in named.values()], rows


def _named(losses: Any, number: int) -> dict[str, Tensor]:
    if isinstance(losses, Mapping):
        named = dict(losses)
    elif isinstance(losses, Iterable) and not (isinstance(losses, Tensor) and losses.dim() == 0):
        named = {str(i): loss for i, loss in enumerate(losses)}
    else:
        named = {}
    if len(named) < 2 or not all(isinstance(x, Tensor) and x.numel() == 1 for x in named.values()):
        raise InputError(
            f"losses gave {losses!r} for batch {number}: "
            "return two or more scalar losses by name, as in {'audio': ..., 'fused': ...}."
        )
    return {str(name): loss.reshape(()) for name, loss in named.items()}


def _flat(gradient: Tensor) -> Tensor:
    gradient = gradient.detach()
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    flat = gradient.reshape(-1)
    return flat if flat.dtype == torch.float64 else flat.float()


def _products(left: Rows, right: Rows) -> Array:
    """⟨left i, right j⟩ per parameter tensor [parameters, n, n], summed in float64."""
    tables = np.zeros((len(left[0]), len(left), len(right)))
    for place in range(len(left[0])):
        rows = [(i, row[place]) for i, row in enumerate(left) if row[place] is not None]
        columns = [(j, row[place]) for j, row in enumerate(right) if row[place] is not None]
        if rows and columns:
            a = torch.stack([x for _, x in rows if x is not None]).double()
            b = torch.stack([x for _, x in columns if x is not None]).double()
            at = np.ix_([i for i, _ in rows], [j for j, _ in columns])
            tables[place][at] = (a @ b.T).cpu().numpy()
    return tables


def _added(sums: Rows, rows: Rows) -> Rows:
    if not sums:
        return [[None if g is None else g.clone() for g in row] for row in rows]
    for total, row in zip(sums, rows, strict=True):
        for place, gradient in enumerate(row):
            known = total[place]
            if gradient is not None:
                total[place] = gradient.clone() if known is None else known.add_(gradient)
    return sums


def _groups(
    names: tuple[str, ...],
    sums: Rows,
    groups: Mapping[str, Sequence[nn.Parameter]] | None,
    parameters: Sequence[nn.Parameter],
) -> dict[str, tuple[list[int], list[int]]]:
    """Group name -> the indices of its objectives and of its parameters."""
    reach = [
        [i for i, row in enumerate(sums) if row[place] is not None]
        for place in range(len(parameters))
    ]
    owner = {id(p): name for name, own in (groups or {}).items() for p in own}
    places: dict[str, list[int]] = {}
    for place, (parameter, reached) in enumerate(zip(parameters, reach, strict=True)):
        if reached:
            by_reach = "+".join(sorted(names[i] for i in reached))
            places.setdefault(owner.get(id(parameter), by_reach), []).append(place)
    parts = {
        name: (sorted({i for place in own for i in reach[place]}), own)
        for name, own in places.items()
    }
    shared = {name: part for name, part in parts.items() if len(part[0]) > 1}
    if not shared:
        raise InputError(
            f"no parameter is reached by two of the losses {', '.join(map(repr, names))}: "
            "there are no gradients to compare."
        )
    return shared

"""Losses and reach of all ranks as one: a loss missing on a rank is the mean over those with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parallel.agreement import Said, compare, compare_reach
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError

Acted = tuple[Losses, Trace, dict[str, float] | None, dict[str, float]]


def act_on(
    found: Sequence[Said] | Sequence[float],
    losses: Losses,
    trace: Trace,
    given: Mapping[int, tuple[str, Tensor, str]],
    rank: int,
    sharded: bool = False,
) -> Acted:
    """The losses, the trace and the scores on which all ranks act; and this rank's part of each.

    Args:
        found: what each rank has, or only how much each counts where that is the same.
        losses: this rank's.
        trace: this rank's.
        given: the given parameters by id, with their names.
        rank: this rank's number.
        sharded: whether gradients are reduced within the backward passes, as means over the ranks.
            Then every rank makes the same passes, and of its losses the mean is the joined one.

    Raises:
        InputError: on every rank, where they cannot act as one.
    """
    if not isinstance(found[0], Said):
        counts = cast(Sequence[float], found)
        total = sum(counts)
        parts = [counts[rank] / total if total else 0.0] * len(losses.names)
        names, scores, some = losses.names, None, total > 0
    else:
        saids = cast(Sequence[Said], found)
        compare(saids)
        if sharded:
            compare_reach(saids)
        names, scores = names_of(saids), mean_scores(saids)
        counted = [[_count(said, name) for said in saids] for name in names]
        parts = [own[rank] / sum(own) if sum(own) else 0.0 for own in counted]
        some = all(map(sum, counted))
        trace = united(trace, saids, names, {name: t for name, t, _ in given.values()})
        losses = replace(losses, weights=weights_of(saids, names, trace.reach.batches))
    if not names:
        raise InputError("losses: at least one is needed; no rank has any.")
    if not some:
        raise InputError("count: there is a loss of which no rank has an example; leave it out.")
    factors = [part * len(found) for part in parts] if sharded else parts
    losses = scaled(losses, names, factors, sharded)
    return losses, trace, scores, dict(zip(names, parts, strict=True))


def names_of(found: Sequence[Said]) -> tuple[str, ...]:
    """The losses of all ranks, in the order in which the first rank that has them gives them."""
    return tuple(dict.fromkeys(name for said in found for name in said.names))


def _count(said: Said, name: str) -> float:
    if name not in said.names:
        return 0.0
    return 1.0 if said.counts is None else said.counts[said.names.index(name)]


def scaled(
    losses: Losses, names: Sequence[str], factors: Sequence[float], every: bool = False
) -> Losses:
    """The losses by these names times their factors.

    One that this rank lacks, or unless `every` has of no example, is a zero that reaches nothing.
    """
    m, place = losses.batches, {name: i for i, name in enumerate(losses.names)}
    stored = bool(losses.tensors) and not any(t.requires_grad for t in losses.tensors)
    like = losses.tensors[0] if losses.tensors else torch.zeros(())
    n = len(place)
    tensors = []
    for b in range(m):
        for name, factor in zip(names, factors, strict=True):
            here = name in place and (factor or every)
            own = losses.tensors[b * n + place[name]] if here else None
            if own is None:
                own = like.new_zeros((), requires_grad=not stored)
            elif not stored and factor != 1:
                with torch.enable_grad():  # backward may be called where gradients are off
                    own = own * factor
            tensors.append(own)
    return replace(losses, names=tuple(names), tensors=tuple(tensors), counts=None)


def weights_of(found: Sequence[Said], names: Sequence[str], batches: int) -> np.ndarray:
    """The user's weight of each loss, from the first rank that has it."""
    both: dict[str, list[float]] = {}
    for said in found:
        n = len(said.names)
        for i, name in enumerate(said.names):
            both.setdefault(name, [said.weights[b * n + i] for b in range(batches)])
    return np.array([both[name][b] for b in range(batches) for name in names])


def united(
    trace: Trace, found: Sequence[Said], names: tuple[str, ...], given: Mapping[str, Tensor]
) -> Trace:
    """The trace with what the losses reach on any rank, in an order that all ranks have.

    Args:
        trace: this rank's.
        found: what each rank has.
        names: the losses of all.
        given: the given parameters by name, in their order.
    """
    place = {name: i for i, name in enumerate(names)}
    batches, possible, certain = trace.reach.batches, dict[str, int](), dict[str, int]()
    for said in found:
        bit = [1 << b * len(names) + place[o] for b in range(batches) for o in said.names]
        for parameter, *both in said.reach:
            for table, own in zip((possible, certain), both, strict=True):
                moved = sum(new for i, new in enumerate(bit) if own >> i & 1)
                table[parameter] = table.get(parameter, 0) | moved
    features = [name for name in trace.features if name in possible]
    order = [*features, *(name for name in given if name in possible)]
    reach = Reach(names, {n: possible[n] for n in order}, {n: certain[n] for n in order}, batches)
    tensors = {**given, **trace.features}
    return replace(
        trace,
        trained={name: tensors[name] for name in order},
        reach=reach,
        unreached={name: t for name, t in given.items() if name not in possible},
    )


def mean_scores(found: Sequence[Said]) -> dict[str, float] | None:
    """The users' measures as means over the ranks that have them, by the number of examples."""
    sums: dict[str, list[float]] = {}
    for said in found:
        counts = said.counts or (1.0,)
        count = sum(counts) / len(counts)
        for name, score in (said.scores or {}).items():
            both = sums.setdefault(name, [0.0, 0.0])
            both[0] += count * score
            both[1] += count
    if not any(said.scores is not None for said in found):
        return None
    return {name: total / count if count else 0.0 for name, (total, count) in sums.items()}

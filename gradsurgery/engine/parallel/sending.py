"""The passes of a step on their way: each pass's gradients are sent while the next pass runs."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradsurgery.engine.communicator import Gradients, Wanted
from gradsurgery.engine.parallel.factors import Factors
from gradsurgery.engine.parallel.failures import group_works
from gradsurgery.engine.parallel.layout import FAILED, ODD, Parcel, joined, parcels_of
from gradsurgery.engine.parallel.wire import Wait, Wire

Again = dict[int, dict[str, Tensor]]  # loss -> weights by name
IN_FLIGHT = 2  # passes on their way at a time: each takes the room of two gradients


@dataclass
class Sent:
    """What came of the passes.

    Attributes:
        passes: per pass its gradients, or this rank's shares of them, by loss and parameter.
        tensors: the parameters that were sent, by name, as far as some rank has a gradient.
        odd: loss -> the ranks whose gradients have NaN or infinity.
        failed: the ranks whose passes raised.
        error: what was raised on this one.
    """

    passes: list[Gradients]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    odd: dict[int, set[int]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    error: BaseException | None = None


def send(
    wire: Wire,
    passes: Iterable[Gradients],
    wanted: Sequence[Wanted],
    local: Collection[str],
    whole: bool,
    names: Sequence[str] = (),
    factors: Factors | None = None,
) -> Sent:
    """Sum the gradients of all passes over the ranks.

    A rank whose pass raises goes on with zeros, so that the others come to an end.

    Args:
        wire: the ranks.
        passes: the passes.
        wanted: what each may give.
        local: names whose gradients stay where they are.
        whole: whether every rank gets the sums as a whole, and not its shares of them.
        names: the losses by number, where the passes are of single ones.
        factors: the weights whose factors are sent in place of their gradients. Where a rank finds
            in a pass that this is wrong for one, its gradients are sent after all.

    Raises:
        RankError: where the process group fails.
    """
    out = Sent([{loss: {} for loss in losses} for losses in wanted])
    plan = list(parcels_of(wanted, local, wire.world, factors.rows if factors else ()))
    waiting: deque[tuple[int, Parcel, Wait, Wait | None]] = deque()
    arrived: list[tuple[int, Parcel, Tensor, list[Tensor]]] = []

    def take() -> None:
        k, parcel, wait, more = waiting.popleft()
        with group_works(_called(parcel, names)):
            if factors is not None and more is not None:
                factors.arrive(parcel, more())
            head, pieces = parcel.unpack(wait())
            if whole:
                pieces = _whole(wire, parcel, pieces)
        arrived.append((k, parcel, head, pieces))

    steps = iter(passes)
    if factors is not None:
        with group_works("sending the inputs of layers"):
            factors.start()
    for k, parcels in enumerate(plan):
        gradients: Gradients = {}
        if out.error is None:
            try:
                gradients = next(steps, gradients)
                if k == len(plan) - 1:
                    deque(steps, 0)  # what comes after the last pass
                if factors is not None:
                    factors.keep_formed(gradients)
            except BaseException as error:
                out.error = error
        for loss in wanted[k] if local else ():
            found = gradients.get(loss, {})
            out.passes[k][loss].update((n, g) for n, g in found.items() if n in local)
        for parcel in parcels:
            if len(waiting) == IN_FLIGHT:
                take()
            rows = None
            if out.error is None:
                try:
                    rows = _packed(parcel, gradients, wire.rank, factors)
                except BaseException as error:
                    out.error = error
            own = _nothing(parcel, wire.rank, factors) if rows is None else rows
            with group_works(_called(parcel, names)):
                more = wire.gather_later(own[1]) if own[1] is not None else None
                waiting.append((k, parcel, wire.scatter(own[0]), more))
            del rows, own
    while waiting:
        take()
    again = _read(out, arrived, wire.world, factors)
    if again and factors is not None and not out.failed:
        _send_again(out, wire, again, names, factors)
    return out


def _packed(
    parcel: Parcel, gradients: Gradients, rank: int, factors: Factors | None
) -> tuple[Tensor, Tensor | None]:
    """What is scattered, and the factors beside it."""
    both = None if factors is None else factors.message(parcel, gradients)
    if factors is None or both is None:
        return parcel.pack(gradients, rank), None
    return parcel.pack(gradients, rank, factors.odd, both), both[0]


def _nothing(parcel: Parcel, rank: int, factors: Factors | None) -> tuple[Tensor, Tensor | None]:
    return parcel.nothing(rank), None if factors is None else factors.nothing(parcel)


def _send_again(
    out: Sent, wire: Wire, again: Again, names: Sequence[str], factors: Factors
) -> None:
    """Send gradients after all, of weights that some rank cannot tap."""

    def parts() -> Iterator[Gradients]:
        for loss, weights in again.items():
            found = ((name, factors.formed(loss, name)) for name in weights)
            yield {loss: {name: g for name, g in found if g is not None}}

    more = send(
        wire, parts(), [{loss: weights} for loss, weights in again.items()], (), False, names
    )
    out.passes += more.passes
    out.tensors |= more.tensors
    out.failed, out.error = more.failed, more.error


def _called(parcel: Parcel, names: Sequence[str]) -> str:
    of = f" of {', '.join(repr(names[loss]) for loss in parcel.losses)}" if names else ""
    return f"sending the gradients{of}"


def _read(
    out: Sent,
    arrived: Sequence[tuple[int, Parcel, Tensor, list[Tensor]]],
    world: int,
    factors: Factors | None,
) -> Again:
    """What all ranks said, and the gradients that some rank has.

    Returns:
        Loss -> the tapped weights whose gradients have to be sent after all.
    """
    heads = [head.to(torch.float32) for _, _, head, _ in arrived]
    if len({head.device for head in heads}) == 1:
        said = torch.cat(heads).tolist()
    else:
        said = [number for head in heads for number in head.tolist()]
    words, place = [], 0
    for head in heads:
        words.append(said[place : place + len(head)])
        place += len(head)
    gone: set[str] = set()
    for (_, parcel, *_), own in zip(arrived, words, strict=True):
        marks = own[world + len(parcel.entries) :]
        gone.update(n for n, mark in zip(parcel.tapped, marks, strict=True) if mark)
    if factors is not None:
        factors.finish(gone)
    again: Again = {}
    for (k, parcel, _, pieces), own in zip(arrived, words, strict=True):
        for rank, word in enumerate(own[:world]):
            if word == FAILED:
                out.failed.add(rank)
            elif word == ODD:
                for loss in parcel.losses:
                    out.odd.setdefault(loss, set()).add(rank)
        counts = own[world : world + len(parcel.entries)]
        entries = zip(parcel.entries, parcel.tensors, pieces, counts, strict=True)
        for (loss, name), tensor, piece, count in entries:
            if not count:
                continue
            if name in parcel.local:
                out.passes[k][loss].setdefault(name, torch.zeros_like(tensor))
            elif name in gone:
                again.setdefault(loss, {})[name] = tensor
            elif factors is not None and name in factors.rows:
                out.passes[k][loss][name] = factors.joined(loss, name)
            else:
                out.passes[k][loss][name] = piece
                out.tensors[name] = tensor
    return again


def _whole(wire: Wire, parcel: Parcel, pieces: Sequence[Tensor]) -> list[Tensor]:
    """The gradients as a whole, from every rank's shares."""
    own = [torch.view_as_real(p).view(-1) if p.is_complex() else p for p in pieces]
    rows = wire.gather(torch.cat(own))
    found = torch.split(rows, parcel.lengths, 1)
    return [joined(part, t) for part, t in zip(found, parcel.tensors, strict=True)]

"""The passes of a step on their way: each pass's gradients are sent while the next pass runs."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradsurgery.engine.communicator import Gradients, Wanted
from gradsurgery.engine.parallel.failures import group_works
from gradsurgery.engine.parallel.layout import FAILED, ODD, Parcel, joined, parcels_of
from gradsurgery.engine.parallel.wire import Wait, Wire

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

    Raises:
        RankError: where the process group fails.
    """
    out = Sent([{loss: {} for loss in losses} for losses in wanted])
    plan = list(parcels_of(wanted, local, wire.world))
    waiting: deque[tuple[int, Parcel, Wait]] = deque()
    arrived: list[tuple[int, Parcel, Tensor, list[Tensor]]] = []

    def take() -> None:
        k, parcel, wait = waiting.popleft()
        with group_works(_called(parcel, names)):
            head, pieces = parcel.unpack(wait())
            if whole:
                pieces = _whole(wire, parcel, pieces)
        arrived.append((k, parcel, head, pieces))

    steps = iter(passes)
    for k, parcels in enumerate(plan):
        gradients: Gradients = {}
        if out.error is None:
            try:
                gradients = next(steps, gradients)
            except BaseException as error:
                out.error = error
        for loss, found in gradients.items():
            out.passes[k][loss].update((n, g) for n, g in found.items() if n in local)
        for parcel in parcels:
            rows = None
            if out.error is None:
                try:
                    rows = parcel.pack(gradients, wire.rank)
                except BaseException as error:
                    out.error = error
            if len(waiting) == IN_FLIGHT:
                take()
            rows = parcel.nothing(wire.rank) if rows is None else rows
            with group_works(_called(parcel, names)):
                waiting.append((k, parcel, wire.scatter(rows)))
            del rows
    while waiting:
        take()
    _read(out, arrived, wire.world)
    return out


def _called(parcel: Parcel, names: Sequence[str]) -> str:
    of = f" of {', '.join(repr(names[loss]) for loss in parcel.losses)}" if names else ""
    return f"sending the gradients{of}"


def _read(
    out: Sent, arrived: Sequence[tuple[int, Parcel, Tensor, list[Tensor]]], world: int
) -> None:
    """What all ranks said, and the gradients that some rank has."""
    heads = [head.to(torch.float32) for _, _, head, _ in arrived]
    if len({head.device for head in heads}) == 1:
        said = torch.cat(heads).tolist()
    else:
        said = [number for head in heads for number in head.tolist()]
    place = 0
    for k, parcel, head, pieces in arrived:
        own = said[place : place + len(head)]
        place += len(head)
        for rank, word in enumerate(own[:world]):
            if word == FAILED:
                out.failed.add(rank)
            elif word == ODD:
                for loss in parcel.losses:
                    out.odd.setdefault(loss, set()).add(rank)
        counts = own[world:]
        entries = zip(parcel.entries, parcel.tensors, pieces, counts, strict=True)
        for (loss, name), tensor, piece, count in entries:
            if not count:
                continue
            if name in parcel.local:
                out.passes[k][loss].setdefault(name, torch.zeros_like(tensor))
            else:
                out.passes[k][loss][name] = piece
                out.tensors[name] = tensor


def _whole(wire: Wire, parcel: Parcel, pieces: Sequence[Tensor]) -> list[Tensor]:
    """The gradients as a whole, from every rank's shares."""
    own = [torch.view_as_real(p).view(-1) if p.is_complex() else p for p in pieces]
    rows = wire.gather(torch.cat(own))
    found = torch.split(rows, parcel.lengths, 1)
    return [joined(part, t) for part, t in zip(found, parcel.tensors, strict=True)]

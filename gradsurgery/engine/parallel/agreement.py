"""Before a step: what each rank has, and what they all act on.

Eight integers per rank say whether all have the same. Only where they do not, the ranks exchange
what they have, and each comes to the same conclusion from it.
"""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradsurgery.engine.parallel.failures import Failure, error_of, failure_of
from gradsurgery.engine.parallel.wire import Wire
from gradsurgery.errors import InputError

FAILED, ALIKE = 1, 0
SEVERAL, ONE_COUNT, NO_COUNT = 0, 1, 2  # one for all losses travels with the integers
ORIGIN = 6
TAPS = 7  # the last of eight integers, in which ranks may differ
Reached = tuple[str, int, int]  # parameter, losses that possibly and certainly reach it, as bits


@dataclass(frozen=True)
class Said:
    """What one rank has.

    Attributes:
        fixed: what has to be the same on all, each with what it is called.
        parameters: name -> shape and dtype of every parameter that was given, as text.
        names: the losses.
        weights: the user's weight of each.
        reach: per parameter the losses that reach it, the i-th as bit i.
        counts: the number of examples of each loss; None counts alike.
        scores: the user's measure per modality.
        step: how many steps came before.
        scale: the GradScaler's factor.
        origin: what state was last loaded, or left by forgetting, as a digest; of what is there
            now where ranks differ in it.
        rank: whose this is, by its number among all processes.
    """

    fixed: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, str], ...]
    names: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    reach: tuple[Reached, ...] = ()
    counts: tuple[float, ...] | None = None
    scores: Mapping[str, float] | None = None
    step: int = 0
    scale: float | None = None
    origin: int = 0
    rank: int = 0


def digest_of(*described: Any) -> int:
    """A number that is the same for the same description, in every process."""
    raw = hashlib.blake2b(repr(described).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little") >> 1


def agree(
    wire: Wire,
    said: Said | BaseException,
    digest: int = 0,
    taps: int = 0,
    state: Callable[[], int] = int,
) -> tuple[list[Said] | list[float], bool]:
    """What all ranks have, or, where that is the same, only how much each rank counts.

    The second is whether all would tap the same layers.

    Args:
        wire: the ranks.
        said: what this one has, or the exception that kept it from having something.
        digest: of what is fixed, the parameters, the losses' names and weights, and the reach.
        taps: a digest of the layers that this rank would tap.
        state: gives a digest of what this rank remembers, where another state was loaded.

    Raises:
        GradSurgeryError: on ranks without an exception, where another has one.
    """
    own = said if isinstance(said, Said) else None
    counts = set(own.counts or (1.0,)) if own else {1.0}
    one = len(counts) == 1 and not (own and own.scores is not None)
    form = SEVERAL if not one else NO_COUNT if own and own.counts is None else ONE_COUNT
    head = [ALIKE if own else FAILED, form, _bits(next(iter(counts))), digest]
    head += [own.step, _bits(own.scale or 0.0), own.origin] if own else []
    heads = wire.integers([*head, *[0] * (TAPS - len(head)), taps])
    first = heads[0]
    alike = all(row[TAPS] == first[TAPS] for row in heads)
    same = all(row[:2] == first[:2] and row[3:TAPS] == first[3:TAPS] for row in heads)
    if same and first[0] == ALIKE and first[1] != SEVERAL:
        return [_number(row[2]) for row in heads], alike
    if isinstance(said, Said) and any(row[ORIGIN] != first[ORIGIN] for row in heads):
        said = replace(said, origin=state())  # one may have loaded what the others have
    number = wire.ranks[wire.rank]
    mine: Said | Failure = (
        replace(said, rank=number) if isinstance(said, Said) else failure_of(said, number)
    )
    found = wire.objects(mine)
    if own is not None and (error := error_of(found)) is not None:
        raise error
    return found, alike


def compare(found: Sequence[Said] | Sequence[float]) -> None:
    """What has to be the same on all ranks is: all that `agree` gives but for mere counts.

    Raises:
        InputError: on every rank the same one, naming what differs.
    """
    saids = [said for said in found if isinstance(said, Said)]
    for other in saids:
        first = saids[0]
        ranks = first.rank, other.rank
        for (what, before), (_, now) in zip(first.fixed, other.fixed, strict=True):
            if before != now:
                _differ(what, ranks, before, now)
        mine, theirs = dict(first.parameters), dict(other.parameters)
        for name in (*mine, *theirs):
            if mine.get(name) != theirs.get(name):
                gone = "none (not given, or frozen)"
                pair = mine.get(name, gone), theirs.get(name, gone)
                _differ(f"parameter {name!r}", ranks, *pair)
        if list(mine) != list(theirs):
            _differ("the order of the parameters", ranks, [*mine][:8], [*theirs][:8])
        _compare_steps(first, other)
    _compare_losses([said for said in saids if said.names])


def _compare_losses(saids: Sequence[Said]) -> None:
    """Of ranks that have some."""
    weights: dict[str, tuple[float, int]] = {}
    for other in saids:
        first = saids[0]
        if (first.counts is None) != (other.counts is None):
            before, now = (said.counts and said.counts[0] for said in (first, other))
            hint = " Give it on all ranks or on none."
            _differ("count=", (first.rank, other.rank), before, now, hint)
        for name, weight in zip(other.names, other.weights, strict=False):
            given, rank = weights.setdefault(name, (weight, other.rank))
            if given != weight:
                _differ(f"the weight of loss {name!r}", (rank, other.rank), given, weight)


def _compare_steps(first: Said, other: Said) -> None:
    ranks = first.rank, other.rank
    if first.step != other.step:
        hint = " Load the same state on all ranks."
        _differ("the number of steps before", ranks, first.step, other.step, hint)
    if first.scale != other.scale:
        _differ("the GradScaler's factor", ranks, first.scale, other.scale)
    if first.origin != other.origin:
        hint = " Call load_state_dict with the same state, and forget, on all ranks or on none."
        _differ("their states", ranks, f"{first.origin:x}", f"{other.origin:x}", hint)


def compare_reach(found: Sequence[Said]) -> None:
    """All ranks have the same losses, and each reaches the same everywhere.

    Raises:
        InputError: on every rank the same one, naming what differs.
    """
    first = found[0]
    hint = (
        " Sharded models reduce gradients within the backward passes, so that all ranks make the "
        "same ones: multiply a loss without examples by 0, or give it a count of 0."
    )
    for other in found:
        ranks = first.rank, other.rank
        if set(first.names) != set(other.names):
            _differ("their losses", ranks, list(first.names), list(other.names), hint)
        before, now = _reached_by(first), _reached_by(other)
        for name in (*before, *now):
            if before.get(name) != now.get(name):
                pair = before.get(name, "none"), now.get(name, "none")
                _differ(f"the losses that reach parameter {name!r}", ranks, *pair, hint)


def _reached_by(said: Said) -> dict[str, list[str]]:
    """Per parameter the losses that possibly reach it; of several batches each by its number."""
    n = max(len(said.names), 1)
    found = {}
    for name, possible, _ in said.reach:
        places = [i for i in range(possible.bit_length()) if possible >> i & 1]
        found[name] = sorted(said.names[i % n] + (f" ({i // n})" if i >= n else "") for i in places)
    return found


def _differ(what: str, ranks: tuple[int, int], first: Any, other: Any, hint: str = "") -> None:
    raise InputError(
        f"the ranks differ in {what}: rank {ranks[0]} has {first}, rank {ranks[1]} has {other}."
        f"{hint} "
        "All ranks of a process group act on the same model with the same settings."
    )


def _bits(number: float) -> int:
    return int.from_bytes(struct.pack("<d", number), "little", signed=True)


def _number(bits: int) -> float:
    (number,) = struct.unpack("<d", bits.to_bytes(8, "little", signed=True))
    return float(number)

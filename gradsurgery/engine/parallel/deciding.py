"""What each rank decided, from the same numbers: the same weights, or an error on every rank."""

from collections.abc import Iterable

import numpy as np

from gradsurgery.engine.parallel.agreement import digest_of
from gradsurgery.engine.parallel.wire import Wire
from gradsurgery.errors import StrategyError
from gradsurgery.record import GroupRecord
from gradsurgery.types import Array

Weights = dict[str, Array]
BYTES = 3
NOTHING = (0.0,) * BYTES
RELATIVE, ABSOLUTE = 1e-3, 1e-6  # what other processors may make of the same numbers


def weights_of(records: Iterable[GroupRecord]) -> Weights:
    """By group the weights, where a strategy gave some."""
    return {r.name: r.weights for r in records if r.weights is not None}


def words_of(weights: Weights) -> tuple[float, ...]:
    """Bytes of a digest, numbers that every dtype holds: the same for the same weights."""
    digest = digest_of([(name, w.astype(np.float32).tobytes()) for name, w in weights.items()])
    return tuple(float(digest >> 8 * i & 0xFF) for i in range(BYTES))


def check_close(wire: Wire, weights: Weights) -> None:
    """Where the words differ: all ranks have the same weights but for rounding.

    Raises:
        StrategyError: on every rank the same one, naming the group.
    """
    found: list[Weights] = wire.objects(weights)
    for rank, other in zip(wire.ranks, found, strict=True):
        for name in {**found[0], **other}:
            first, own = found[0].get(name), other.get(name)
            if first is None or own is None or not _close(first, own):
                raise StrategyError(
                    f"the ranks decided on different weights for group {name!r} from the same "
                    f"gradients: rank {wire.ranks[0]} on {first}, rank {rank} on {own}. A strategy "
                    "takes random numbers from its input `rng`, and its state is the same on all "
                    "ranks. Nothing was changed."
                )


def _close(first: Array, other: Array) -> bool:
    same = first.shape == other.shape
    return same and np.allclose(first, other, RELATIVE, ABSOLUTE, equal_nan=True)

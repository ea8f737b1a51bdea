"""Numbers as a state keeps them, by the objectives' names: one, or one per objective or pair."""

from collections.abc import Collection, Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradsurgery.types import Array

Entry = tuple[tuple[str, ...], float]  # the key has an objective for each dimension


class Kept(NamedTuple):
    """Numbers with the objectives of each dimension.

    They are never changed in place, so that copies of a state share them.
    """

    objectives: tuple[str, ...]
    values: Array
    seen: NDArray[np.bool_] | None = None  # which entries were ever set; None is all

    @classmethod
    def of(cls, ndim: int, entries: Sequence[Entry]) -> "Kept":
        """Numbers from entries as they are saved."""
        objectives = tuple(dict.fromkeys(o for key, _ in entries for o in key))
        values = np.zeros((len(objectives),) * ndim)
        seen = np.zeros(values.shape, dtype=np.bool_)
        for key, value in entries:
            at = tuple(map(objectives.index, key))
            values[at], seen[at] = value, True
        return cls(objectives, values, None if seen.all() else seen)

    def over(self, other: "Kept | None") -> "Kept":
        """These numbers, and those of the other where these have none."""
        ndim = self.values.ndim
        if other is None or (other.objectives == self.objectives and self.seen is None):
            return self
        objectives = tuple(dict.fromkeys(self.objectives + other.objectives))
        values = np.zeros((len(objectives),) * ndim)
        seen = np.zeros(values.shape, dtype=np.bool_)
        for kept in (other, self):
            places = _places(kept.objectives, objectives, ndim)
            known = np.ones(kept.values.shape, dtype=np.bool_) if kept.seen is None else kept.seen
            values[places] = np.where(known, kept.values, values[places])
            seen[places] |= known
        return Kept(objectives, values, None if seen.all() else seen)

    def without(self, objectives: Collection[str]) -> "Kept":
        """These numbers without those of some objectives."""
        places = [i for i, o in enumerate(self.objectives) if o not in objectives]
        if len(places) == len(self.objectives):
            return self
        index = np.ix_(*[places] * self.values.ndim)
        names = tuple(self.objectives[i] for i in places)
        seen = None if self.seen is None else self.seen[index]
        return Kept(names, self.values[index], seen)

    def entries(self) -> Iterable[Entry]:
        """Every number with its key; a NaN is no number yet."""
        keys = product(self.objectives, repeat=self.values.ndim)
        for key, at in zip(keys, np.ndindex(self.values.shape), strict=True):
            if (self.seen is None or self.seen[at]) and not np.isnan(self.values[at]):
                yield key, float(self.values[at])

    def at(self, objectives: tuple[str, ...], init: Any) -> Array:
        """A copy in this order, with `init` where there is no number yet."""
        if self.objectives == objectives and self.seen is None:
            return self.values.copy()
        known = self.over(Kept(objectives, filled(objectives, self.values.ndim, init)))
        index = _places(objectives, known.objectives, self.values.ndim)
        return np.asarray(known.values[index])


def filled(objectives: tuple[str, ...], ndim: int, init: Any) -> Array:
    """An array over these objectives with `init` everywhere: a number, or an array of the shape."""
    return np.array(np.broadcast_to(np.asarray(init, dtype=np.float64), (len(objectives),) * ndim))


def _places(objectives: tuple[str, ...], among: tuple[str, ...], ndim: int) -> tuple[Any, ...]:
    """The index of these objectives in an array over `among`."""
    return np.ix_(*[[among.index(o) for o in objectives]] * ndim)

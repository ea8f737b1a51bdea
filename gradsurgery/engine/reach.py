"""Reach: which objectives reach which parameter, certainly or possibly."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


class Reach(Mapping[str, frozenset[str]]):
    """Which objectives reach which parameter; immutable.

    A mapping from the name of a parameter to the set of the objectives that reach it. With m
    independent batches there are m losses per objective, one batch after the other, and
    `losses` counts them all. A loss whose graph goes through a compiled region possibly reaches
    what lies past it: only its gradient tells.

    Args:
        objectives: the names of the n objectives, in the order of the losses.
        possible: parameter -> the losses that reach it, certainly or possibly, as bits; the i-th
            loss has bit i.
        certain: parameter -> those that certainly do; None where all do.
        batches: m.

    Attributes:
        uncertain: the parameters that some loss reaches possibly, and not certainly.
    """

    __slots__ = ("_alive", "_certain", "_possible", "_sets", "batches", "objectives", "uncertain")

    def __init__(
        self,
        objectives: Sequence[str] = (),
        possible: Mapping[str, int] | None = None,
        certain: Mapping[str, int] | None = None,
        batches: int = 1,
    ) -> None:
        self.objectives = tuple(objectives)
        self.batches = batches
        self._possible = dict(possible or {})
        odd = certain is not None and certain != self._possible
        self._certain = dict(certain or {}) if odd else self._possible
        self.uncertain = frozenset[str]()
        if odd:
            table = self._certain
            doubtful = (n for n, p in self._possible.items() if p & ~table.get(n, 0))
            self.uncertain = frozenset(doubtful)
        self._sets: dict[int, tuple[str, ...]] = {}
        self._alive: frozenset[frozenset[str]] | None = None

    @classmethod
    def of(cls, sets: Mapping[str, Iterable[str]]) -> "Reach":
        """The reach of sets of objectives by parameter."""
        names = tuple(dict.fromkeys(o for found in sets.values() for o in sorted(found)))
        bits = {name: 1 << i for i, name in enumerate(names)}
        return cls(names, {name: sum(bits[o] for o in set(found)) for name, found in sets.items()})

    def __getitem__(self, parameter: str) -> frozenset[str]:
        return frozenset(self._named(self._possible[parameter]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._possible)

    def __len__(self) -> int:
        return len(self._possible)

    def __contains__(self, parameter: object) -> bool:
        return parameter in self._possible

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Mapping) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # as for other mappings

    def __repr__(self) -> str:
        return f"Reach({ {name: sorted(found) for name, found in self.items()} })"

    def __reduce__(self) -> tuple[Any, ...]:
        return Reach, (self.objectives, self._possible, self._certain, self.batches)

    def _named(self, bits: int) -> tuple[str, ...]:
        found = self._sets.get(bits)
        if found is None:
            n = len(self.objectives)
            any_batch = 0
            for b in range(self.batches):
                any_batch |= bits >> b * n & ((1 << n) - 1)
            found = tuple(o for i, o in enumerate(self.objectives) if any_batch >> i & 1)
            self._sets[bits] = found
        return found

    def ordered(self, parameter: str) -> tuple[str, ...]:
        """The objectives that reach a parameter, in the order of the losses; () if unknown."""
        return self._named(self._possible.get(parameter, 0))

    def count(self, parameter: str) -> int:
        """How many losses reach a parameter."""
        return self._possible.get(parameter, 0).bit_count()

    @property
    def sets(self) -> frozenset[frozenset[str]]:
        """The different sets of objectives that reach some parameter."""
        if self._alive is None:
            self._alive = frozenset(map(frozenset, map(self._named, {*self._possible.values()})))
        return self._alive

    def only_possibly(self, parameter: str, loss: int) -> bool:
        """Whether the loss at this position reaches a parameter possibly, and not certainly."""
        bits = self._possible.get(parameter, 0) & ~self._certain.get(parameter, 0)
        return bool(bits >> loss & 1)

    def bits(self) -> Iterator[tuple[str, int, int]]:
        """Per parameter the losses that possibly and that certainly reach it, as bits."""
        for name, possible in self._possible.items():
            yield name, possible, self._certain.get(name, 0)

    def by_loss(self) -> list[list[str]]:
        """Per loss the parameters that it reaches."""
        every = range(len(self.objectives) * self.batches)
        return [[name for name, bits in self._possible.items() if bits >> i & 1] for i in every]

    def arrived(self, found: Sequence[Iterable[str]], also: "Reach | None" = None) -> "Reach":
        """The reach that gradients show: per loss the parameters that it gave one.

        Args:
            found: per loss the names.
            also: what is known of further parameters.
        """
        bits: dict[str, int] = {}
        for i, names in enumerate(found):
            for name in names:
                bits[name] = bits.get(name, 0) | 1 << i
        if also is not None:
            bits.update(also._possible)
        if also is None and self._certain is self._possible and bits == self._possible:
            return self
        return Reach(self.objectives, bits, None, self.batches)

    def expected(self, before: "Reach", always: Iterable[str]) -> "Reach | None":
        """The reach as far as it is known before gradients: what each loss has reached before.

        Args:
            before: what was reached in earlier steps.
            always: parameters for which the graph alone decides.

        Returns:
            None where the graph shows more than that. Past compiled regions it always does; what
            no loss has reached before is left out there.
        """
        n = len(self.objectives)
        ours = frozenset(always)
        known = {}
        for name, possible in self._possible.items():
            earlier = before.get(name, frozenset())
            one = sum(1 << i for i, o in enumerate(self.objectives) if o in earlier)
            bits = sum(one << b * n for b in range(self.batches)) if name not in ours else possible
            doubtful = possible & ~self._certain.get(name, 0) if name in before else 0
            if possible & ~bits & ~doubtful:
                return None
            known[name] = possible & bits
        return Reach(self.objectives, known, None, self.batches)

    def united(self, other: "Reach", parameters: Iterable[str] | None = None) -> "Reach":
        """What one of both says, of each parameter; this one itself where the other adds nothing.

        Args:
            other: the other.
            parameters: those of the other that count; None is all of them.
        """
        chosen = list(other if parameters is None else parameters)
        sets = {name: frozenset(other.ordered(name)) for name in chosen}
        if all(name in self and found <= self[name] for name, found in sets.items()):
            return self
        names = tuple(dict.fromkeys((*self.objectives, *other.objectives)))
        bits = {name: 1 << i for i, name in enumerate(names)}
        possible = {n: sum(bits[o] for o in self._named(b)) for n, b in self._possible.items()}
        for name, found in sets.items():
            possible[name] = possible.get(name, 0) | sum(bits[o] for o in found)
        return Reach(names, possible)

    def joined(self, other: "Reach") -> "Reach":
        """Both reaches of single batches as one, with what is certain and what is possible."""
        names = tuple(dict.fromkeys((*self.objectives, *other.objectives)))
        bits = {name: 1 << i for i, name in enumerate(names)}
        possible: dict[str, int] = {}
        certain: dict[str, int] = {}
        for reach in (self, other):
            for table, own in ((possible, reach._possible), (certain, reach._certain)):
                for name, found in own.items():
                    table[name] = table.get(name, 0) | sum(bits[o] for o in reach._named(found))
        return Reach(names, possible, certain)

    def only(self, parameters: Iterable[str]) -> "Reach | None":
        """The reach of these parameters alone; None for none."""
        kept = {name: self._possible[name] for name in parameters if name in self._possible}
        return Reach(self.objectives, kept, None, self.batches) if kept else None

    def without(self, objectives: Iterable[str]) -> "Reach":
        """The reach as if these objectives had never been; what no other reaches is left out."""
        gone = frozenset(objectives)
        return Reach.of({name: left for name, before in self.items() if (left := before - gone)})

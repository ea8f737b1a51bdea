"""State: what a strategy remembers between steps, keyed by the names of objectives and parameters."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.stored import as_count, as_gradient, as_name, as_names, as_number
from gradsurgery.errors import InputError, StrategyError

Array = NDArray[np.float64]


class _Kept(NamedTuple):
    """Numbers by objective, by pair, or one: never changed in place, so that copies of a state share them."""

    objectives: tuple[str, ...]
    values: Array
    seen: NDArray[np.bool_] | None = None  # which entries were ever set; None is all

    def over(self, other: "_Kept | None") -> "_Kept":
        """These numbers, and those of the other where these have none."""
        ndim = self.values.ndim
        if other is None or (other.objectives == self.objectives and self.seen is None):
            return self
        objectives = tuple(dict.fromkeys(self.objectives + other.objectives))
        values, seen = (
            np.zeros((len(objectives),) * ndim),
            np.zeros((len(objectives),) * ndim, dtype=np.bool_),
        )
        for kept in (other, self):
            places = np.ix_(*[[objectives.index(o) for o in kept.objectives]] * ndim)
            known = np.ones(kept.values.shape, dtype=np.bool_) if kept.seen is None else kept.seen
            values[places] = np.where(known, kept.values, values[places])
            seen[places] |= known
        return _Kept(objectives, values, None if seen.all() else seen)

    def without(self, objectives: Collection[str]) -> "_Kept":
        """These numbers without those of some objectives."""
        places = [i for i, o in enumerate(self.objectives) if o not in objectives]
        if len(places) == len(self.objectives):
            return self
        index = np.ix_(*[places] * self.values.ndim)
        return _Kept(
            tuple(self.objectives[i] for i in places),
            self.values[index],
            None if self.seen is None else self.seen[index],
        )

    def entries(self) -> Iterable[tuple[tuple[str, ...], float]]:
        """(key, value), with an objective in the key for each dimension."""
        for key, at in zip(
            product(self.objectives, repeat=self.values.ndim),
            np.ndindex(self.values.shape),
            strict=True,
        ):
            if (self.seen is None or self.seen[at]) and not np.isnan(
                self.values[at]
            ):  # NaN: no number yet
                yield key, float(self.values[at])

    def at(self, objectives: tuple[str, ...], init: Any) -> Array:
        """A copy in this order, with `init` where there is no number yet."""
        if self.objectives == objectives and self.seen is None:
            return self.values.copy()
        known = self.over(_Kept(objectives, _filled(objectives, self.values.ndim, init)))
        return known.values[
            np.ix_(*[[known.objectives.index(o) for o in objectives]] * self.values.ndim)
        ]


class State:
    """The memory of one strategy on one group.

    A strategy asks for what it needs by name and gets it in this step's order of objectives, as a working copy that it
    changes in place or assigns (`state["xi"] = new`). The front end keeps the changes when the step stands and drops
    them when it fails. Objectives that are absent in a step keep their values.

    Example:
        >>> from gradsurgery import State
        >>> state = State()
        >>> step = state.bind(("a", "b"))
        >>> step.vector("xi", 0.0)[:] = [1.0, 2.0]
        >>> state.adopt(step)
        >>> state.bind(("b", "c", "a")).vector("xi", 0.0).tolist()
        [2.0, 0.0, 1.0]
    """

    def __init__(self) -> None:
        self._numbers: dict[
            tuple[str, int], _Kept
        ] = {}  # by name and kind: one number, [n] or [n, n]
        self._tensors: dict[str, dict[tuple[str, str], Tensor]] = {}
        self._objectives: tuple[str, ...] | None = None
        self._parameters: tuple[str, ...] = ()
        self._like: Sequence[Tensor] = ()
        self._arrays: dict[str, Array] = {}
        self._rows: dict[str, Tensor] = {}

    def bind(
        self, objectives: Sequence[str], parameters: Sequence[str] = (), like: Sequence[Tensor] = ()
    ) -> "State":
        """A working copy for one step, in this order of objectives and parameter tensors."""
        bound = self.copy()
        bound._objectives, bound._parameters, bound._like = (
            tuple(objectives),
            tuple(parameters),
            like,
        )
        return bound

    @property
    def objectives(self) -> tuple[str, ...]:
        """This step's objectives, in order."""
        return self._order()

    def vector(self, name: str, init: Any = 0.0) -> Array:
        """[n], one number an objective; objectives not seen before start from `init` (a number or [n])."""
        return self._working(name, init, 1)

    def pairs(self, name: str, init: Any = 0.0) -> Array:
        """[n, n], one number per ordered pair of objectives; new pairs start from `init` (a number or [n, n])."""
        return self._working(name, init, 2)

    def scalar(self, name: str, init: float = 0.0) -> float:
        """One number for the group; set it with `state[name] = value`."""
        return float(self._working(name, init, 0))

    def rows(self, name: str) -> Tensor:
        """[n, d] on the parameters' device, zeros for what is new; kept per objective and parameter tensor."""
        if name not in self._rows:
            if not self._like:
                raise StrategyError(
                    f"state.rows({name!r}): there are no parameter tensors here; call the strategy on gradients."
                )
            saved = self._tensors.get(name, {})
            for (_, p), tensor in saved.items():
                for q, t in self._pieces():
                    if p == q and tensor.shape != t.shape:
                        raise InputError(
                            f"the saved state {name!r} of parameter {p} has shape {list(tensor.shape)}, the parameter {list(t.shape)}: "
                            "it belongs to another model (a Surgery made with parameters=model knows parameters by name)."
                        )
            rows = [
                torch.cat(
                    [
                        saved[o, p].reshape(-1).to(t)
                        if (o, p) in saved
                        else torch.zeros_like(t).reshape(-1)
                        for p, t in self._pieces()
                    ]
                )
                for o in self._order()
            ]
            self._rows[name] = torch.stack(rows)
        return self._rows[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._rows:
            self._rows[name].copy_(value)
        elif name in self._arrays:
            new = np.asarray(value, dtype=np.float64)
            if new.shape != self._arrays[name].shape:
                raise StrategyError(
                    f"state[{name!r}] has shape {self._arrays[name].shape}; got {new.shape}."
                )
            self._arrays[name][...] = new
        else:
            raise StrategyError(
                f"state[{name!r}]: read it first with vector, pairs, scalar or rows, which gives it its kind."
            )

    def adopt(self, step: "State") -> None:
        """Keep what a working copy ended with."""
        numbers, tensors = dict(self._numbers), dict(self._tensors)
        order = step._order()
        for name, array in step._arrays.items():
            key = name, array.ndim
            numbers[key] = _Kept(order if array.ndim else (), array.copy()).over(numbers.get(key))
        for name, rows in step._rows.items():
            new = {
                (o, p): piece.reshape(t.shape).clone()
                for o, row in zip(order, rows.detach(), strict=True)
                for (p, t), piece in zip(
                    step._pieces(), row.split([t.numel() for t in step._like]), strict=True
                )
            }
            tensors[name] = {**tensors.get(name, {}), **new}
        self._numbers, self._tensors = numbers, tensors

    def copy(self, parameters: Iterable[str] | None = None) -> "State":
        """A copy, with the rows of these parameters only."""
        new = State()
        new._numbers = dict(self._numbers)
        keep = None if parameters is None else set(parameters)
        new._tensors = {
            n: {k: t for k, t in v.items() if keep is None or k[1] in keep}
            for n, v in self._tensors.items()
        }
        return new

    def without(self, objectives: Collection[str]) -> "State":
        """A copy without anything of these objectives."""
        new = State()
        new._numbers = {key: kept.without(objectives) for key, kept in self._numbers.items()}
        new._tensors = {
            n: {k: t for k, t in v.items() if k[0] not in objectives}
            for n, v in self._tensors.items()
        }
        return new

    def absorb(self, other: "State") -> None:
        """Take from another state what this one does not have."""
        self._numbers = {
            **other._numbers,
            **{name: kept.over(other._numbers.get(name)) for name, kept in self._numbers.items()},
        }
        self._tensors = {
            n: {**other._tensors.get(n, {}), **self._tensors.get(n, {})}
            for n in {**other._tensors, **self._tensors}
        }

    @property
    def has_rows(self) -> bool:
        """Whether it keeps tensors of the parameters' shapes."""
        return any(self._tensors.values())

    def state_dict(self) -> dict[str, Any]:
        """Tensors, strings, numbers and tuples only: it loads with `weights_only=True`."""
        return {
            "numbers": {
                name: tuple(
                    entry
                    for (other, _), kept in self._numbers.items()
                    if other == name
                    for entry in kept.entries()
                )
                for name in dict.fromkeys(name for name, _ in self._numbers)
            },
            "tensors": {
                name: tuple((key, value.clone()) for key, value in values.items())
                for name, values in self._tensors.items()
            },
        }

    @classmethod
    def from_state_dict(
        cls, saved: Mapping[str, Any], whole: bool = False, finite: bool = False
    ) -> "State":
        """The inverse of `state_dict`.

        Args:
            saved: what it gave.
            whole: whether a NaN among the numbers is an error; states saved by earlier versions have it for "no number yet".
            finite: whether an infinity among the numbers is an error, and a count below zero: shipped strategies have none.

        Raises:
            InputError: when it is not what `state_dict` gave.
        """
        new = cls()
        try:
            for name, entries in saved["numbers"].items():
                by_kind: dict[int, list[tuple[tuple[str, ...], float]]] = {}
                for key, value in entries:
                    number = as_number(name, value, whole, finite)
                    by_kind.setdefault(len(key), []).append(
                        (as_names(key), as_count(name, number) if finite else number)
                    )
                new._numbers.update(
                    {(as_name(name), ndim): _loaded(ndim, found) for ndim, found in by_kind.items()}
                )
            for name, pieces in saved["tensors"].items():
                kept = {(as_name(k[0]), as_name(k[1])): as_gradient(name, x) for k, x in pieces}
                if len(kept) < len(pieces) or any(len(k) != 2 for k, _ in pieces):
                    raise InputError(
                        f"this is not a saved strategy state: the keys of {name!r} are not pairs that differ."
                    )
                new._tensors[as_name(name)] = kept
        except InputError:
            raise
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            IndexError,
            OverflowError,
        ) as error:
            raise InputError(f"this is not a saved strategy state: {error!r}.") from error
        return new

    def shapes(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        """Parameter and shape of every tensor that is kept."""
        for kept in self._tensors.values():
            for (_, parameter), tensor in kept.items():
                yield parameter, tuple(tensor.shape)

    def renamed(self, names: Mapping[str, str]) -> "State":
        """A copy with the rows of parameters that have a new name here."""
        new = self.copy()
        new._tensors = {
            n: {(o, names[p]): t for (o, p), t in kept.items() if p in names}
            for n, kept in self._tensors.items()
        }
        return new

    def _order(self) -> tuple[str, ...]:
        if self._objectives is None:
            raise StrategyError(
                "this State is not bound to a step; strategies get a bound one as their input `state`."
            )
        return self._objectives

    def _pieces(self) -> list[tuple[str, Tensor]]:
        return list(zip(self._parameters, self._like, strict=True))

    def _working(self, name: str, init: Any, ndim: int) -> Array:
        order = self._order() if ndim else ()
        if name in self._rows or (name in self._arrays and self._arrays[name].ndim != ndim):
            raise StrategyError(f"state {name!r} was read as another kind before.")
        if name not in self._arrays:
            kept = self._numbers.get((name, ndim))
            self._arrays[name] = (
                _filled(order, ndim, init) if kept is None else kept.at(order, init)
            )
        return self._arrays[name]


def _filled(objectives: tuple[str, ...], ndim: int, init: Any) -> Array:
    return np.array(np.broadcast_to(np.asarray(init, dtype=np.float64), (len(objectives),) * ndim))


def _loaded(ndim: int, entries: Sequence[tuple[tuple[str, ...], float]]) -> _Kept:
    """Numbers as they are saved: (key, value), with `ndim` objectives a key."""
    objectives = tuple(dict.fromkeys(o for key, _ in entries for o in key))
    values, seen = (
        np.zeros((len(objectives),) * ndim),
        np.zeros((len(objectives),) * ndim, dtype=np.bool_),
    )
    for key, value in entries:
        at = tuple(map(objectives.index, key))
        values[at], seen[at] = value, True
    return _Kept(objectives, values, None if seen.all() else seen)

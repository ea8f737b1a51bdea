"""What a strategy remembers between steps, by the names of objectives and parameters."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.kept import Kept, filled
from gradsurgery.contract.stored import Numbers, Tensors, read_numbers, read_tensors
from gradsurgery.errors import InputError, StrategyError
from gradsurgery.types import Array

OF = " of parameter "  # between the name of numbers and that of the tensor that they belong to


class State:
    """What one strategy remembers of one group between steps.

    A strategy asks for what it needs by name and gets it in this step's order of objectives. It is
    a working copy, which it changes in place or assigns (`state["xi"] = new`). The changes are kept
    when the step stands and dropped when it fails. Objectives that are absent in a step keep their
    values.

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
        self._numbers: Numbers = {}
        self._tensors: Tensors = {}
        self._objectives: tuple[str, ...] | None = None
        self._parameters: tuple[str, ...] = ()
        self._like: Sequence[Tensor] = ()
        self._arrays: dict[str, Array] = {}
        self._rows: dict[str, Tensor] = {}
        self._rows_of: dict[str, tuple[str, ...]] = {}
        self._blocks: dict[str, Array] = {}

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
        """[n], one number per objective; new ones start from `init` (a number or [n])."""
        return self._working(name, init, 1)

    def pairs(self, name: str, init: Any = 0.0) -> Array:
        """[n, n], one number per ordered pair of objectives.

        New pairs start from `init` (a number or [n, n]).
        """
        return self._working(name, init, 2)

    def scalar(self, name: str, init: float = 0.0) -> float:
        """One number for the group; set it with `state[name] = value`."""
        return float(self._working(name, init, 0))

    def blocks(self, name: str, init: float = 0.0) -> Array:
        """[k, n], one number per parameter tensor and objective, in the order of `block_grams`.

        New ones start from `init`. Without parameter tensors, as for a plain Gram matrix, k is 1.
        """
        if name not in self._blocks:
            keys = [name + OF + p for p in self._parameters or ("0",)]
            block = np.array([self._working(key, init, 1) for key in keys])
            self._arrays.update(zip(keys, block, strict=True))  # views: a change is seen there
            self._blocks[name] = block
        return self._blocks[name]

    def rows(self, name: str, of: Sequence[str] | None = None) -> Tensor:
        """[n, d] on the parameters' device, kept per objective and parameter tensor.

        What is new starts from zero. `of` names the objectives that have a row, all by default.
        """
        if name not in self._rows:
            if not self._like:
                raise StrategyError(
                    f"state.rows({name!r}): there are no parameter tensors here; "
                    "call the strategy on gradients."
                )
            saved = self._tensors.get(name, {})
            self._check_shapes(name, saved)
            self._rows[name] = torch.stack(
                [
                    torch.cat([_row(saved.get((o, p)), t) for p, t in self._pieces()])
                    for o in (self._order() if of is None else of)
                ]
            )
            self._rows_of[name] = self._order() if of is None else tuple(of)
        return self._rows[name]

    def _check_shapes(self, name: str, saved: Mapping[tuple[str, str], Tensor]) -> None:
        shapes = {p: t.shape for p, t in self._pieces()}
        for (_, p), tensor in saved.items():
            if tensor.shape != shapes.get(p, tensor.shape):
                raise InputError(
                    f"the saved state {name!r} of parameter {p} has shape {list(tensor.shape)}, "
                    f"the parameter {list(shapes[p])}: it belongs to another model "
                    "(a Surgery made with parameters=model knows parameters by name)."
                )

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._rows:
            self._rows[name].copy_(value)
        elif name in self._blocks:
            self._blocks[name][...] = value
        elif name in self._arrays:
            new = np.asarray(value, dtype=np.float64)
            if new.shape != self._arrays[name].shape:
                raise StrategyError(
                    f"state[{name!r}] has shape {self._arrays[name].shape}; got {new.shape}."
                )
            self._arrays[name][...] = new
        else:
            raise StrategyError(
                f"state[{name!r}]: read it first with vector, pairs, scalar, blocks or rows, "
                "which gives it its kind."
            )

    def adopt(self, step: "State") -> None:
        """Keep what a working copy ended with."""
        numbers, tensors = dict(self._numbers), dict(self._tensors)
        order = step._order()
        for name, array in step._arrays.items():
            key = name, array.ndim
            numbers[key] = Kept(order if array.ndim else (), array.copy()).over(numbers.get(key))
        for name, rows in step._rows.items():
            new = {
                (o, p): piece.reshape(t.shape).clone()
                for o, row in zip(step._rows_of[name], rows.detach(), strict=True)
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
        merged = {key: kept.over(other._numbers.get(key)) for key, kept in self._numbers.items()}
        self._numbers = {**other._numbers, **merged}
        self._tensors = {
            n: {**other._tensors.get(n, {}), **self._tensors.get(n, {})}
            for n in {**other._tensors, **self._tensors}
        }

    @property
    def has_rows(self) -> bool:
        """Whether it keeps tensors of the parameters' shapes."""
        return any(self._tensors.values())

    def state_dict(self) -> dict[str, Any]:
        """Tensors, strings, numbers and tuples only: it loads with `weights_only=True`.

        Tensors are copies on the host: whoever loads them may have another device.
        """
        numbers: dict[str, tuple[Any, ...]] = {}
        for (name, _), kept in self._numbers.items():
            numbers[name] = (*numbers.get(name, ()), *kept.entries())
        return {
            "numbers": numbers,
            "tensors": {
                name: tuple((key, value.to("cpu", copy=True)) for key, value in values.items())
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
            whole: whether a NaN among the numbers is an error. States saved by earlier versions
                have it for "no number yet".
            finite: whether an infinity among the numbers is an error, and a count below zero.
                The strategies of this library have none.

        Raises:
            InputError: when it is not what `state_dict` gave.
        """
        new = cls()
        try:
            new._numbers = read_numbers(saved["numbers"], whole, finite)
            new._tensors = read_tensors(saved["tensors"])
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"this is not a saved strategy state: {error!r}.") from error
        return new

    def shapes(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        """Parameter and shape of every tensor that is kept."""
        for kept in self._tensors.values():
            for (_, parameter), tensor in kept.items():
                yield parameter, tuple(tensor.shape)

    def renamed(self, names: Mapping[str, str]) -> "State":
        """A copy with the rows and blocks of parameters that have a new name here."""
        new = self.copy()
        new._numbers = {
            (name + of + names.get(p, p), ndim): kept
            for (whole, ndim), kept in self._numbers.items()
            for name, of, p in [whole.partition(OF)]
        }
        new._tensors = {
            n: {(o, names[p]): t for (o, p), t in kept.items() if p in names}
            for n, kept in self._tensors.items()
        }
        return new

    def _order(self) -> tuple[str, ...]:
        if self._objectives is None:
            raise StrategyError(
                "this State is not bound to a step; strategies get a bound one as their input "
                "`state`."
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
            self._arrays[name] = filled(order, ndim, init) if kept is None else kept.at(order, init)
        return self._arrays[name]


def _row(saved: Tensor | None, like: Tensor) -> Tensor:
    """The saved tensor, flat, with the dtype and device of `like`; zeros where there is none."""
    return torch.zeros_like(like).reshape(-1) if saved is None else saved.reshape(-1).to(like)

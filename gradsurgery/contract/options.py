"""Options of a strategy: checked when they are bound, and read by objective."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from gradsurgery.errors import InputError, StrategyError, one_of


@dataclass(frozen=True)
class Range:
    """The numbers an option may take, as the second part of an `Annotated`.

    Example:
        >>> str(Range(0, 1)), str(Range(0, low_open=True)), str(Range(1))
        ('from 0 to 1', 'above 0', 'at least 1')
    """

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.low_open else 'at least'} {self.low:g}"
        if self.low == -math.inf:
            return f"{'below' if self.high_open else 'at most'} {self.high:g}"
        return f"from {self.low:g}{' (excluded)' if self.low_open else ''} to {self.high:g}{' (excluded)' if self.high_open else ''}"


@dataclass(frozen=True)
class PerObjective:
    """Numbers of one range: one for all, a dict by objective, or a sequence in the losses' order.

    The second part of an `Annotated[Any, ...]`; `by_objective` then reads such an option.

    Example:
        >>> str(PerObjective(Range(0, 1)))
        'from 0 to 1, or one such number per objective'
        >>> {"a": 0.5} in PerObjective(Range(0, 1)), [0.5, 2.0] in PerObjective(Range(0, 1))
        (True, False)
    """

    numbers: Range = Range()

    def __contains__(self, value: Any) -> bool:
        given = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(given, Mapping):
            given = list(given.values())
        found = list(given) if isinstance(given, (list, tuple)) else [given]
        real = all(isinstance(x, Real) and not isinstance(x, bool) for x in map(_plain, found))
        return real and all(math.isfinite(x) and x in self.numbers for x in map(_plain, found))

    def __str__(self) -> str:
        if self.numbers == Range():
            return "or one number per objective"
        return f"{self.numbers}, or one such number per objective"


def _plain(value: Any) -> Any:
    """A number as Python has it, from a tensor or an array of one."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


OBJECTIVE = "an objective's name"
ObjectiveName = Annotated[str, OBJECTIVE]
POSITIVE = Range(0, low_open=True)
NON_NEGATIVE = Range(0)
SHARE = Range(0, 1)


def annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations by parameter name, resolved where they can be."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {name: p.annotation for name, p in inspect.signature(function).parameters.items()}


def check_option(where: str, option: str, value: Any, annotation: Any) -> None:
    """Hold a value against its annotation: a Literal, bool, int, float, None, a union of these, or one with a `Range`.

    Raises:
        StrategyError: that says what was given and what is accepted.
    """
    problem = _problem(value, annotation)
    if problem is not None:
        literals = [
            str(v)
            for part in _parts(annotation)
            if get_origin(part) is Literal
            for v in get_args(part)
        ]
        if literals and isinstance(value, str):
            raise StrategyError(f"{where}: " + one_of(option, value, literals))
        raise StrategyError(f"{where}: {option} is {problem}; got {value!r}.")


def names_objective(annotation: Any) -> bool:
    """Whether an option is the name of an objective (`ObjectiveName`)."""
    return any(
        get_origin(part) is Annotated and OBJECTIVE in get_args(part)[1:]
        for part in _parts(annotation)
    )


def describe_annotation(annotation: Any) -> str:
    """In a few words, for a list of options; empty where there is nothing to say."""
    return " or ".join(filter(None, (_words(part) for part in _parts(annotation))))


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for part in get_args(annotation) for inner in _parts(part)]
    return [annotation]


def _words(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        values = list(map(repr, get_args(annotation)))
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if origin is Annotated:
        base, *marks = get_args(annotation)
        said = [str(mark) for mark in marks if isinstance(mark, (Range, PerObjective))]
        return OBJECTIVE if OBJECTIVE in marks else " ".join([_words(base), *said])
    if annotation is type(None):
        return "None"
    if annotation is Any:
        return "a number"
    return {float: "a number", int: "a whole number", bool: "True or False", str: "a name"}.get(
        annotation, ""
    )


def _problem(value: Any, annotation: Any) -> str | None:
    parts = _parts(annotation)
    found = [_mismatch(value, part) for part in parts]
    if None in found:
        return None
    return " or ".join(dict.fromkeys(filter(None, found)))


def _mismatch(value: Any, annotation: Any) -> str | None:
    """What the value should have been, or None where it is that (or nothing is known)."""
    origin = get_origin(annotation)
    if origin is Literal:
        fits = any(
            value is known or (type(value) is type(known) and value == known)
            for known in get_args(annotation)
        )
    elif origin is Annotated:
        base, *marks = get_args(annotation)
        ranges = [mark for mark in marks if isinstance(mark, (Range, PerObjective))]
        fits = _mismatch(value, base) is None and all(value in mark for mark in ranges)
    elif annotation is type(None):
        fits = value is None
    elif annotation is bool:
        fits = isinstance(value, bool)
    elif annotation in (int, float):
        fits = (
            isinstance(value, Real)
            and (annotation is float or isinstance(value, Integral))
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
    elif annotation is str:
        fits = isinstance(value, str)
    else:
        fits = True
    return None if fits else _words(annotation)


class ObjectiveNames(tuple[str, ...]):
    """The objectives of one group, which also know `every`, the names of all losses of the step."""

    every: tuple[str, ...]

    def __new__(cls, names: Sequence[str], every: tuple[str, ...]) -> "ObjectiveNames":
        new = super().__new__(cls, names)
        new.every = every
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectiveNames, (tuple(self), self.every)


def by_objective(
    what: str, values: Any, objectives: Sequence[str], default: float | None = None
) -> NDArray[np.float64]:
    """Numbers [n] in the order of `objectives`: one for all, a dict by name, or a sequence in the order of the losses.

    When the losses were given as a sequence their names are their positions, so that a group which only some of them
    reach still picks the right ones.
    """
    if values is None:
        if default is None:
            raise InputError(f"{what}: give one number per objective ({', '.join(objectives)}).")
        return np.full(len(objectives), float(default))
    each = (
        values.values()
        if isinstance(values, Mapping)
        else values
        if isinstance(values, list | tuple)
        else (values,)
    )
    if any(getattr(value, "requires_grad", False) for value in each):
        raise InputError(
            f"{what}: numbers are needed, and a tensor that requires grad would get no gradient from here. "
            "To learn a weight, multiply it into the loss: losses={'a': weight * loss, ...}; else give weight.detach()."
        )
    if (isinstance(values, Real) and not isinstance(values, bool)) or getattr(
        values, "ndim", None
    ) == 0:
        numbers: list[Any] = [values] * len(objectives)
    elif isinstance(values, Mapping):
        missing = [o for o in objectives if o not in values]
        if missing and default is None:
            raise InputError(
                f"{what}: nothing given for {', '.join(map(repr, missing))}; given: {', '.join(map(repr, values))}."
            )
        numbers = [values.get(o, default) for o in objectives]
    else:
        numbers = _in_order(what, values, objectives)
    try:
        array = np.array([float(x) for x in numbers])
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected numbers; got {numbers!r}.") from error
    if not np.isfinite(array).all():
        raise InputError(
            f"{what}: expected finite numbers; got {dict(zip(objectives, array.tolist(), strict=True))}."
        )
    return array


def _in_order(what: str, values: Any, objectives: Sequence[str]) -> list[Any]:
    """The numbers of these objectives, from numbers for losses that are named by their positions.

    Where all losses of the step are known there is one number for each of them; elsewhere the names have to rise.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | set | frozenset):
        raise InputError(
            f"{what}: expected a number, a dict by name, or numbers in the order of the losses; got {values!r}."
        )
    given = values.tolist() if hasattr(values, "tolist") else list(values)
    every = getattr(objectives, "every", None)
    if every is not None:
        fits = every == tuple(map(str, range(len(given))))
    else:
        places = [int(o) if o.isascii() and o.isdecimal() else -1 for o in objectives]
        fits = list(map(str, places)) == list(objectives) and all(
            a < b for a, b in zip(places, [*places[1:], len(given)], strict=True)
        )
    if not fits:
        names = ", ".join(map(repr, every or objectives))
        raise InputError(
            f"{what}: {len(given)} numbers in order do not fit the objectives {names}; give a dict by name."
        )
    return [given[int(o)] for o in objectives]

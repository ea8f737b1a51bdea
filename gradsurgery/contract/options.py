"""Options of a strategy: what a value may be, by its annotation, checked when it is bound."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gradsurgery.errors import StrategyError, one_of


@dataclass(frozen=True)
class Range:
    """The numbers an option may take, as the second part of an `Annotated`.

    Example:
        >>> from gradsurgery.contract import Range
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
        low = f"{self.low:g}{' (excluded)' if self.low_open else ''}"
        high = f"{self.high:g}{' (excluded)' if self.high_open else ''}"
        return f"from {low} to {high}"


@dataclass(frozen=True)
class PerObjective:
    """Numbers of one range: one for all, a dict by objective, or a sequence in the losses' order.

    The second part of an `Annotated[Any, ...]`; `by_objective` then reads such an option.

    Example:
        >>> from gradsurgery.contract import PerObjective, Range
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
    """Check a value against its annotation.

    That may be a Literal, bool, int, float, None, a union of these, or one with a `Range`; a value
    with any other annotation passes.

    Raises:
        StrategyError: that says what was given and what is accepted.
    """
    problem = _problem(value, annotation)
    if problem is None:
        return
    literals = [part for part in _parts(annotation) if get_origin(part) is Literal]
    accepted = [str(v) for part in literals for v in get_args(part)]
    if accepted and isinstance(value, str):
        raise StrategyError(f"{where}: " + one_of(option, value, accepted))
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

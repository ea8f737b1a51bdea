"""Options and inputs with one number per objective, in the order of the objectives."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.types import Array


class ObjectiveNames(tuple[str, ...]):
    """The objectives of one group; `every` are the names of all losses of the step."""

    every: tuple[str, ...]

    def __new__(cls, names: Sequence[str], every: tuple[str, ...]) -> "ObjectiveNames":
        new = super().__new__(cls, names)
        new.every = every
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectiveNames, (tuple(self), self.every)


def by_objective(
    what: str, values: Any, objectives: Sequence[str], default: float | None = None
) -> Array:
    """Numbers [n] in the order of `objectives`.

    They are given as one number for all, a dict by name, or a sequence in the order of the losses.
    Losses that were given as a sequence are named by their positions, so that a group which only
    some of them reach picks its own numbers.

    Args:
        what: what the numbers are, for the errors.
        values: the numbers; None where none are given.
        objectives: the names, as the input `objectives` has them.
        default: the number of an objective that is not named; None where each has to be.

    Raises:
        InputError: when an objective has no number, or one that cannot be used.
    """
    if values is None:
        if default is None:
            raise InputError(f"{what}: give one number per objective ({', '.join(objectives)}).")
        return np.full(len(objectives), float(default))
    _check_detached(what, values)
    real = isinstance(values, Real) and not isinstance(values, bool)
    if real or getattr(values, "ndim", None) == 0:
        numbers: list[Any] = [values] * len(objectives)
    elif isinstance(values, Mapping):
        missing = [o for o in objectives if o not in values]
        if missing and default is None:
            raise InputError(
                f"{what}: nothing given for {', '.join(map(repr, missing))}; "
                f"given: {', '.join(map(repr, values))}."
            )
        numbers = [values.get(o, default) for o in objectives]
    else:
        numbers = _in_order(what, values, objectives)
    try:
        array = np.array([float(x) for x in numbers])
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected numbers; got {numbers!r}.") from error
    if not np.isfinite(array).all():
        named = dict(zip(objectives, array.tolist(), strict=True))
        raise InputError(f"{what}: expected finite numbers; got {named}.")
    return array


def _check_detached(what: str, values: Any) -> None:
    given = values.values() if isinstance(values, Mapping) else values
    each = given if isinstance(values, Mapping | list | tuple) else (given,)
    if any(getattr(value, "requires_grad", False) for value in each):
        raise InputError(
            f"{what}: numbers are needed, and a tensor that requires grad would get no gradient "
            "from here. To learn a weight, multiply it into the loss: "
            "losses={'a': weight * loss, ...}; else give weight.detach()."
        )


def _in_order(what: str, values: Any, objectives: Sequence[str]) -> list[Any]:
    """The numbers of these objectives, from numbers for losses that are named by their positions.

    Where all losses of the step are known there is one number for each. Elsewhere the names have
    to rise.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | set | frozenset):
        raise InputError(
            f"{what}: expected a number, a dict by name, or numbers in the order of the losses; "
            f"got {values!r}."
        )
    given = values.tolist() if hasattr(values, "tolist") else list(values)
    every = getattr(objectives, "every", None)
    if every is not None:
        fits = every == tuple(map(str, range(len(given))))
    else:
        places = [int(o) if o.isascii() and o.isdecimal() else -1 for o in objectives]
        rising = all(a < b for a, b in zip(places, [*places[1:], len(given)], strict=True))
        fits = list(map(str, places)) == list(objectives) and rising
    if not fits:
        names = ", ".join(map(repr, every or objectives))
        raise InputError(
            f"{what}: {len(given)} numbers in order do not fit the objectives {names}; "
            "give a dict by name."
        )
    return [given[int(o)] for o in objectives]

"""A saved state read again: names, numbers and tensors, each checked where it is read."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.kept import Entry, Kept
from gradsurgery.errors import InputError

Numbers = dict[tuple[str, int], Kept]  # by name and kind: one number (0), [n] (1) or [n, n] (2)
Tensors = dict[str, dict[tuple[str, str], Tensor]]  # name -> (objective, parameter) -> tensor


def read_numbers(saved: Mapping[Any, Iterable[Any]], whole: bool, finite: bool) -> Numbers:
    """The numbers of a state; `whole` and `finite` are those of `State.from_state_dict`."""
    found: Numbers = {}
    for name, entries in saved.items():
        by_kind: dict[int, list[Entry]] = {}
        for key, value in entries:
            number = as_number(name, value, whole, finite)
            number = as_count(name, number) if finite else number
            by_kind.setdefault(len(key), []).append((as_names(key), number))
        found |= {(as_name(name), ndim): Kept.of(ndim, kept) for ndim, kept in by_kind.items()}
    return found


def read_tensors(saved: Mapping[Any, Any]) -> Tensors:
    """The tensors of a state."""
    found: Tensors = {}
    for name, pieces in saved.items():
        kept = {(as_name(k[0]), as_name(k[1])): as_gradient(name, x) for k, x in pieces}
        if len(kept) < len(pieces) or any(len(k) != 2 for k, _ in pieces):
            raise InputError(
                "this is not a saved strategy state: "
                f"the keys of {name!r} are not pairs that differ."
            )
        found[as_name(name)] = kept
    return found


def as_name(saved: Any) -> str:
    """A name as it is saved.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(saved, str):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; {saved!r} is no name."
        )
    return saved


def as_names(saved: Any) -> tuple[str, ...]:
    """Names as they are saved.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(saved, list | tuple):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; {saved!r} are no names."
        )
    return tuple(map(as_name, saved))


def as_pairs(saved: Any) -> tuple[tuple[str, Any], ...]:
    """Names that differ, each with a value, as they are saved; earlier versions saved a dict.

    Raises:
        InputError: for anything else.
    """
    found = tuple(saved.items()) if isinstance(saved, Mapping) else saved
    if not isinstance(found, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in found
    ):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; {saved!r} are no pairs."
        )
    names = [as_name(name) for name, _ in found]
    if len(set(names)) < len(names):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; a name comes twice in {names}."
        )
    return tuple((name, value) for name, value in found)


def as_numbers(saved: Any) -> dict[str, float]:
    """Finite numbers by name as they are saved.

    Raises:
        InputError: for anything else.
    """
    return {name: as_number(name, value, True, True) for name, value in as_pairs(saved)}


def as_number(name: str, value: Any, whole: bool, finite: bool) -> float:
    """A saved number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(
            f"this is not a saved strategy state: {name!r} has {value!r}, which is no number."
        )
    number = float(value)
    if (whole and np.isnan(number)) or (finite and np.isinf(number)):
        raise InputError(f"this is not a saved strategy state: {name!r} has {number}.")
    return number


def as_count(name: str, number: float) -> float:
    """A number, checked where it counts.

    In the strategies of this library one named "steps", or "NAME/steps", counts.
    """
    if name.split("/")[-1] == "steps" and not (number >= 0 and number.is_integer()):
        raise InputError(f"this is not a saved strategy state: {name!r} counts, and has {number}.")
    return number


def as_gradient(name: str, saved: Any) -> Tensor:
    """A saved tensor, as a copy of its own."""
    real = isinstance(saved, Tensor) and saved.is_floating_point()
    if not isinstance(saved, Tensor) or not real or saved.layout != torch.strided:
        raise InputError(
            f"this is not a saved strategy state: {name!r} has {type(saved).__name__}, "
            "where it keeps dense tensors of real numbers."
        )
    if not bool(torch.isfinite(saved).all()):
        raise InputError(
            f"this is not a saved strategy state: {name!r} has a tensor with NaN or inf."
        )
    return saved.detach().clone()

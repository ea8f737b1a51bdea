"""Plain values as a state holds them: names, numbers and tensors, each checked where it is read."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.errors import InputError


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


def as_numbers(saved: Mapping[Any, Any]) -> dict[str, float]:
    """Finite numbers by name as they are saved.

    Raises:
        InputError: for anything else.
    """
    return {as_name(name): as_number(name, value, True, True) for name, value in saved.items()}


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
    """In the shipped strategies a number named "steps" counts, also under a longer name that ends so."""
    if name.split("/")[-1] == "steps" and not (number >= 0 and number.is_integer()):
        raise InputError(f"this is not a saved strategy state: {name!r} counts, and has {number}.")
    return number


def as_gradient(name: str, saved: Any) -> Tensor:
    if (
        not isinstance(saved, Tensor)
        or not saved.is_floating_point()
        or saved.layout != torch.strided
    ):
        raise InputError(
            f"this is not a saved strategy state: {name!r} has {type(saved).__name__}, where it keeps dense tensors of real numbers."
        )
    if not bool(torch.isfinite(saved).all()):
        raise InputError(
            f"this is not a saved strategy state: {name!r} has a tensor with NaN or inf."
        )
    return saved.detach().clone()

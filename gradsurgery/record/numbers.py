"""A Record as flat numbers for a logger, and as plain data that JSON takes and gives back."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.record.group import GroupRecord
from gradsurgery.types import Array

DERIVED = ("norms", "cosines", "mean_cosine", "conflicts")  # they follow from the fields
SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # JSON has no such number


def scalars_of(group: GroupRecord) -> Iterator[tuple[str, float]]:
    """(name, number) of what is known of a group, as `Record.scalars` says."""
    names, gram, weights = group.objectives, group.gram, group.weights
    if weights is not None and weights.ndim > 1:
        weights = weights.mean(0)
    per_objective = {"norm": group.norms, "weight": weights, "change": group.change}
    for kind, values in per_objective.items():
        if values is not None:
            for name, value in zip(names, values.tolist(), strict=True):
                yield f"{kind}/{name}", value
    if group.cosines is not None and gram is not None and group.conflicts is not None:
        yield "conflicts", float(len(group.conflicts))
        for i, first in enumerate(names):
            for j in range(i + 1, len(names)):
                yield f"cosine/{first}, {names[j]}", float(group.cosines[i, j])
        yield "sum_length", _root(float(gram.sum()))
        if weights is not None:
            yield "length", _root(float(weights @ gram @ weights))
    if group.risen is not None:
        yield "risen", float(len(group.risen))
    for kind in ("mean_cosine", "gap", "corrected"):
        number = getattr(group, kind)
        if number is not None:
            yield kind, float(number)


def _root(square: float) -> float:
    return math.sqrt(max(square, 0.0)) if math.isfinite(square) else math.nan


def plain(value: Any) -> Any:
    """The value as lists, dicts, strings, booleans, None and finite numbers.

    NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity".
    """
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, number in SPELLED.items() if str(number) == str(value))
    return value


def plain_group(group: GroupRecord) -> dict[str, Any]:
    """The fields of a group, and what follows from them, as plain data."""
    names = [field.name for field in fields(GroupRecord)]
    return {name: plain(getattr(group, name)) for name in (*names, *DERIVED)}


def restored_group(data: Mapping[str, Any]) -> GroupRecord:
    """The group that `plain_group` wrote.

    Raises:
        InputError: for fields that are missing.
    """
    given: dict[str, Any] = {}
    for field in fields(GroupRecord):
        if field.name in data:
            given[field.name] = _restored(data[field.name], field.type)
        elif field.default is MISSING:
            raise InputError(f"a group of a Record misses {field.name!r}; got {sorted(data)}.")
    return GroupRecord(**given)


def _restored(value: Any, kind: Any) -> Any:
    if kind == Array | None:
        return None if value is None else np.array(number_of(value), dtype=np.float64)
    return tuple(value) if isinstance(value, list) else number_of(value)


def number_of(value: Any) -> Any:
    """The value with "NaN", "Infinity" and "-Infinity" as numbers again, in lists too."""
    if isinstance(value, list):
        return [number_of(inner) for inner in value]
    return SPELLED.get(value, value) if isinstance(value, str) else value

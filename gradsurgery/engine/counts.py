"""`count=`: how many examples this process's mean losses are of."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradsurgery.engine.losses import Losses
from gradsurgery.engine.observed import numbers_by_name
from gradsurgery.errors import InputError, one_of


def counted(losses: Losses, count: Any) -> Losses:
    """The losses with the number of examples of each.

    Args:
        losses: the losses.
        count: a number for all of them, or a dict by name.

    Raises:
        InputError: for anything else, for names that no loss has, or numbers below zero.
    """
    if count is None:
        return losses
    if not isinstance(count, Mapping):
        number = numbers_by_name("count", {"count": count})["count"]
        found = dict.fromkeys(losses.names, number)
    else:
        found = numbers_by_name("count", count)
        if unknown := [name for name in found if name not in losses.names]:
            raise InputError("count: " + one_of("loss", unknown[0], losses.names))
        if missing := [name for name in losses.names if name not in found]:
            raise InputError(
                f"count: a dict has all losses of this step; {missing[0]!r} is missing."
            )
    for name, number in found.items():
        if not (math.isfinite(number) and number >= 0):
            raise InputError(f"count: expected a number >= 0 for loss {name!r}; got {number}.")
    return replace(losses, counts=tuple(found[name] for name in losses.names))

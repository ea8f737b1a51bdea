"""Numbers that users give by name: scores, and losses observed after the optimizer's step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from gradsurgery.engine.losses import by_name
from gradsurgery.errors import InputError, one_of


def numbers_by_name(what: str, given: Any) -> dict[str, float]:
    """A dict from name to number, from numbers or scalar tensors.

    Raises:
        InputError: for anything else, or two names that are the same as strings.
    """
    if isinstance(given, Mapping) and len(set(map(str, given))) < len(given):
        raise InputError(
            f"{what}: two names are the same as strings; got {', '.join(map(repr, given))}."
        )
    try:
        return {
            str(name): float(value.detach() if isinstance(value, Tensor) else value)
            for name, value in given.items()
        }
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{what}: expected a number for each name, as in {{'a': 0.5, 'b': 1.0}}; got {given!r}."
        ) from error


def observed_losses(losses: Any, weights: Mapping[str, float]) -> dict[str, float]:
    """The values of losses after the optimizer's step, times the user's own weights.

    Args:
        losses: numbers or scalar tensors: a dict by name or a sequence.
        weights: the weight of each loss of the last step.

    Raises:
        InputError: for numbers that are not finite, for other names than those, or before the
            first step.
    """
    if not weights:
        raise InputError(
            "observe: there was no step yet; call it after backward and the optimizer's step."
        )
    if isinstance(losses, Iterable) and not isinstance(losses, Mapping):
        losses = _in_order(losses, list(weights))
    values = numbers_by_name("observe", losses)
    for name, value in values.items():
        if name not in weights:
            raise InputError("observe: " + one_of("loss", name, weights))
        if not math.isfinite(value):
            raise InputError(f"observe: loss {name!r} is {value}.")
    if missing := [name for name in weights if name not in values]:
        raise InputError(
            f"observe: {', '.join(map(repr, missing))} of the last step's losses are missing; "
            "give all of them."
        )
    return {name: value * weights[name] for name, value in values.items()}


def _in_order(losses: Iterable[Any], names: list[str]) -> Mapping[str, Any]:
    """Losses without names by their positions, which those in `names` have for names.

    Raises:
        InputError: where names and positions may differ.
    """
    given = by_name(losses if isinstance(losses, Tensor) else list(losses))
    if set(given) == set(names) and list(given) != names:
        raise InputError(
            f"observe: the losses are {', '.join(map(repr, names))}, which are no positions in "
            "order; give a dict by name."
        )
    return given

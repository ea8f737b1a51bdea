"""What the user gave as losses, in one form: scalars by name, or mixtures of per-example losses."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gradsurgery.contract.per_objective import ObjectiveNames, by_objective
from gradsurgery.engine.losses import Losses, LossesLike, parse_losses
from gradsurgery.engine.per_example.given import PerExample, parsed
from gradsurgery.errors import InputError

AnyLosses = LossesLike | PerExample


def parse(
    losses: Any,
    weights: Any = None,
    earlier: Callable[[], Iterable[str]] = tuple,
    nothing: bool = False,
) -> Losses:
    """As `parse_losses`; the mixtures of a `PerExample` are scalars too.

    Raises:
        InputError: as `parse_losses`.
    """
    if not isinstance(losses, PerExample):
        try:
            return parse_losses(losses, weights, earlier, nothing)
        except InputError:
            if (several := _several(losses)) is not None:
                raise several from None
            raise
    own = np.ones(len(losses.names))
    if weights is not None:
        own = by_objective("weights", weights, ObjectiveNames(losses.names, losses.names))
    return parsed(losses, own)


def _several(losses: Any) -> InputError | None:
    """What to say of several `PerExample`, by name or in a row."""
    if not isinstance(losses, Mapping | list | tuple):
        return None
    own = losses.values() if isinstance(losses, Mapping) else losses
    if not any(isinstance(loss, PerExample) for loss in own):
        return None
    return InputError(
        f"losses: got a {type(losses).__name__} with PerExample in it. One PerExample holds all "
        "objectives: gs.PerExample(losses, {name: weights of the examples}), in place of the "
        f"{type(losses).__name__}. Losses that no such weights make of one tensor are given as a "
        "dict of scalars."
    )

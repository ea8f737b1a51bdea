"""What the user gave as losses, in one form: scalars by name, or mixtures of per-example losses."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gradsurgery.contract.per_objective import ObjectiveNames, by_objective
from gradsurgery.engine.losses import Losses, parse_losses
from gradsurgery.engine.per_example.given import PerExample, parsed


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
        return parse_losses(losses, weights, earlier, nothing)
    own = np.ones(len(losses.names))
    if weights is not None:
        own = by_objective("weights", weights, ObjectiveNames(losses.names, losses.names))
    return parsed(losses, own)

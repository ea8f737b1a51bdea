"""What a strategy returned, checked."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gradsurgery.errors import NonFiniteError, StrategyError
from gradsurgery.solvers import Solution
from gradsurgery.types import Array


@dataclass(frozen=True)
class Outcome:
    """Weights [n], [k, n] or [m, n], or a direction [d]; and the solver's gap, if there is one."""

    weights: Array | None
    direction: Tensor | None = None
    gap: float | None = None
    converged: bool | None = None


def checked(
    strategy: str,
    inputs: Collection[str],
    given: Mapping[str, Any],
    result: Any,
    n: int,
    blocks: int | None,
) -> Outcome:
    """The outcome of one call.

    Args:
        strategy: its name, for the errors.
        inputs: those that it takes, which decide what it may return.
        given: their values.
        result: what the function returned.
        n: the number of objectives.
        blocks: the number of parameter tensors, where one row of weights for each is allowed.

    Raises:
        StrategyError: for another type or shape than its inputs ask for.
        NonFiniteError: for weights that are not finite.
    """
    if "rows" in inputs:
        if not isinstance(result, Tensor) or result.shape != (given["rows"].shape[1],):
            raise StrategyError(
                f"strategy {strategy!r} takes `rows`, so it returns a direction [d]; "
                f"got {shown(result)}."
            )
        return Outcome(None, result)
    gap = converged = None
    value = result
    if isinstance(result, Solution):
        value, gap, converged = result.value, result.gap, result.converged
    try:
        if value is None:
            raise TypeError
        weights = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StrategyError(
            f"strategy {strategy!r} returned {type(result).__name__}; expected weights [{n}]."
        ) from error
    shape = (len(given["cross"]), n) if "cross" in inputs else (n,)
    per_tensor = None if blocks is None or "cross" in inputs else (blocks, n)
    if weights.shape not in (shape, per_tensor):
        raise StrategyError(
            f"strategy {strategy!r} returned weights of shape {list(weights.shape)}; "
            f"expected {list(shape)}."
        )
    # The sum of squares tells in one quick call; where it is not finite, it may have overflowed.
    if not (math.isfinite(np.vdot(weights, weights)) or np.isfinite(weights).all()):
        raise NonFiniteError(
            f"strategy {strategy!r} returned weights that are not finite: {weights.tolist()}."
        )
    return Outcome(weights, None, gap, converged)


def shown(value: Any) -> str:
    """A value by its type, or an array by its dtype, shape and device."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None:
        return type(value).__name__
    return f"{dtype} {list(shape)} on {getattr(value, 'device', 'cpu')}"

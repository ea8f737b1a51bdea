"""Solution: what every solver returns, with the gap by which it can be judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradsurgery.types import Array


@dataclass(frozen=True)
class Solution:
    """The answer of a solver on a Gram matrix.

    Attributes:
        value: the weights w [n]; the direction is d = Jᵀw.
        gap: the optimality gap, without unit: relative to each row's norm and to Σⱼ wⱼ nⱼ. Each
            solver says how.
        iterations: how many iterations it took (0 for a closed form).
        converged: whether `gap` is below the solver's tolerance.
        objective: the minimised (or maximised) quantity at `value`, in the Gram's units.
    """

    value: Array
    gap: float
    iterations: int
    converged: bool
    objective: float = float("nan")

    @property
    def weights(self) -> Array:
        """The same as `value`."""
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.value, dtype=dtype)

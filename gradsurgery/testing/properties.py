"""The properties that claims speak of, by name.

Each is a function that says how a strategy breaks it on a sample. None means that the property
holds there; `SKIP` that the sample cannot tell, as a direction that rounding decides.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gradsurgery.contract import Claim, Strategy
from gradsurgery.testing.conflicts import non_conflicting, projection, strict
from gradsurgery.testing.invariances import (
    deterministic,
    homogeneous,
    permutation_equivariant,
    scale_invariant,
)
from gradsurgery.testing.runner import SKIP, known
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.tolerances import nearly_stationary


class Property(Protocol):
    """How a strategy breaks a property on a sample: a sentence, None, or `SKIP`."""

    def __call__(self, strategy: Strategy, sample: Sample, claim: Claim, /) -> str | None: ...


@dataclass(frozen=True)
class Registered:
    """A property under the name of its claim."""

    name: str
    violation: Property


def sums_to_one(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """Σ w = 1, away from stationarity."""
    if nearly_stationary(strategy, sample):
        return SKIP
    weights = known(strategy, sample).weights
    if weights is None:
        return "it returns a direction, so it has no weights that could sum to one"
    total = weights.sum(-1)
    if (np.abs(total - 1) <= 1e-9 * np.maximum(1.0, np.abs(weights).sum(-1))).all():
        return None
    return f"the weights sum to {np.array2string(total, precision=10)}"


_BY_NAME: dict[str, Property] = {
    "non-conflicting": non_conflicting,
    "strict": strict,
    "homogeneous": homogeneous,
    "scale-invariant": scale_invariant,
    "permutation-equivariant": permutation_equivariant,
    "deterministic": deterministic,
    "sums-to-one": sums_to_one,
    "projection": projection,
}
PROPERTIES = {name: Registered(name, violation) for name, violation in _BY_NAME.items()}

"""What comes with the gradients, as varied as in training: names, losses, group, scores, accuracy.

All of it follows from the sample's `draw`, so that a smaller Jacobian of the same draw keeps it. A
draw of 0 is the plain case: names "0", "1", ..., one group "all", losses from 0.5 to 2, Gram
matrices in float64.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradsurgery.contract import Strategy
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

SINGLE_EPS = 1e-6  # of a Gram matrix whose sums were made in float32
GROUPS = ("all", "encoder", "audio+fused", "0")
LETTERS = "zyxwvutsrqponmlkjihgfedcba"  # so that their order is not that of the objectives


@dataclass(frozen=True)
class Circumstances:
    """One draw of them."""

    words: bool = False
    group: str = "all"
    losses: str = "near"
    observed: bool = False
    eps: float | None = None
    scores: tuple[float, ...] = (2.0, 1.0)


PLAIN = Circumstances()


@lru_cache(maxsize=1 << 13)
def circumstances(draw: int) -> Circumstances:
    """The circumstances of a draw."""
    if draw == 0:
        return PLAIN
    rng = np.random.default_rng([draw, 1])
    return Circumstances(
        words=bool(rng.random() < 0.5),
        group=GROUPS[rng.integers(len(GROUPS))],
        losses=("near", "wide", "wide", "small")[rng.integers(4)],
        observed=bool(rng.random() < 0.5),
        eps=SINGLE_EPS if rng.random() < 0.25 else None,
        scores=((2.0, 1.0), (0.7, 1.0), (1.5, 0.4, 3.0))[rng.integers(3)],
    )


def stationary(sample: Sample, least: float) -> float:
    """How near to stationary, as `Sample.conditioning` counts it, a strategy may stop."""
    return max(least, 100 * (circumstances(sample.draw).eps or 0.0))


def names_of(strategy: Strategy, sample: Sample) -> tuple[str, ...]:
    """The objectives' names: words or digits. Those that an option refers to stay digits."""
    if not circumstances(sample.draw).words:
        return sample.names
    kept = _referred(strategy)
    if kept is None:
        return sample.names
    return tuple(n if n in kept else word(int(n)) for n in sample.names)


def word(index: int) -> str:
    """A name that is no number."""
    return f"{LETTERS[index % 26]}{'/loss' if index % 2 else ' loss'}{'+' * (index // 26)}"


def _referred(strategy: Strategy) -> set[str] | None:
    """The names that options refer to.

    None where options go by position, or name another strategy whose options may.
    """
    found: set[str] = set()
    for value in strategy.options.values():
        if isinstance(value, str) and not re.search(r"[(\[]", value):
            found.add(value)
        elif isinstance(value, Mapping):
            found |= set(map(str, value))
            for inner in value.values():  # a dict per group
                found |= set(map(str, inner)) if isinstance(inner, Mapping) else set()
        elif not (value is None or isinstance(value, bool | int | float)):
            return None
    return found


def losses_of(sample: Sample, moment: int = 0) -> Array:
    """Losses [n], positive and all different; they belong to the names.

    "near" is 0.5 to 2, "wide" 1e-3 to 1e3, "small" 1e-3 to 0.1. Those of later moments have
    changed by factors of up to 2.
    """
    places = _places(sample)
    return np.asarray(_losses(max(places) + 1, sample.draw, moment)[places])


def changes(sample: Sample, moment: int, what: int) -> Array:
    """Factors [n] from 0.5 to 2 by which a positive quantity has changed until a later moment."""
    places = _places(sample)
    return np.asarray(_changes(max(places) + 1, sample.draw, moment, what)[places])


def _places(sample: Sample) -> list[int]:
    return [int(name) for name in sample.names]


@lru_cache(maxsize=1 << 13)
def _losses(n: int, draw: int, moment: int) -> Array:
    shares = np.random.default_rng(n).permutation(n) / n
    kind = circumstances(draw).losses
    found = 0.5 + 1.5 * shares
    if kind != "near":
        found = 10.0 ** (-3 + (6 if kind == "wide" else 2) * (shares + 0.5 / n))
    return np.asarray(found * _changes(n, draw, moment, 1))


@lru_cache(maxsize=1 << 13)
def _changes(n: int, draw: int, moment: int, what: int) -> Array:
    if moment == 0:
        return np.ones(n)
    return np.asarray(2.0 ** np.random.default_rng([draw, moment, what]).uniform(-1, 1, n))


def observed_of(sample: Sample, moment: int) -> Array:
    """The losses as observed after the step before; NaN for an objective that was absent then."""
    found = losses_of(sample, moment) * changes(sample, moment + 1, 2)
    if moment and sample.count > 1:
        places = _places(sample)
        absent = sorted(places)[sample.draw % sample.count]
        found[places.index(absent)] = np.nan
    return found


def scores_of(sample: Sample) -> dict[str, float]:
    """Scores of the group's modality, named as the group, and of others."""
    drawn = circumstances(sample.draw)
    others = ("other", "third") if drawn.group == "all" else ("visual", "text")
    return dict(zip((drawn.group, *others), drawn.scores, strict=False))

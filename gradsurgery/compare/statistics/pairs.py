"""Figures of two strategies paired by seed: what is compared, and which seeds were left out."""

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gradsurgery.errors import InputError, one_of

BETTER = {"higher": 1, "lower": -1}
# figures mostly come from float32, though they are written with more digits
EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Pairs:
    """A strategy's figures minus a baseline's, by seed.

    Pairs cancel what a seed does to both: the split, the noise, the order, and where the models
    are alike the initial weights.

    Attributes:
        seeds: those with a figure on both sides, in increasing order.
        differences: per seed, the strategy's figure minus the baseline's.
        dropped: the seeds with a figure on one side only.
        rounding: differences up to this size may come from rounding the figures alone, to
            float32: 5e-7 of the largest figure.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    dropped: tuple[int, ...]
    rounding: float

    @property
    def n(self) -> int:
        """The number of seeds that both sides have."""
        return len(self.seeds)

    @property
    def varies(self) -> bool:
        """Whether the differences vary over seeds by more than rounding."""
        values = self.differences
        return bool(values) and max(values) - min(values) > self.rounding

    @property
    def identical(self) -> bool:
        """Whether there are seeds, and the figures are the same in each of them."""
        return self.n > 0 and max(map(abs, self.differences)) <= self.rounding

    def said(self) -> str:
        """The number of seeds in words, with those that were left out."""
        count = f"{self.n} seed" + ("" if self.n == 1 else "s")
        if not self.dropped:
            return count
        which = ", ".join(map(str, self.dropped))
        return f"{count}; left out, with a figure on one side only: {which}"


def pair(figures: Mapping[int, float], baseline: Mapping[int, float]) -> Pairs:
    """The figures of a strategy and of a baseline, paired by seed.

    Args:
        figures: seed -> the strategy's figure.
        baseline: seed -> the baseline's figure.

    Raises:
        InputError: for a figure that is NaN or infinite: such a run has failed and has no figure.

    >>> from gradsurgery.compare.statistics import pair
    >>> pairs = pair({0: 91.0, 1: 90.5, 2: 92.0}, {0: 90.0, 1: 90.0, 3: 89.0})
    >>> pairs.seeds, pairs.differences, pairs.dropped
    ((0, 1), (1.0, 0.5), (2, 3))
    >>> pairs.said()
    '2 seeds; left out, with a figure on one side only: 2, 3'
    """
    for side in (figures, baseline):
        for seed, figure in side.items():
            if not isinstance(figure, numbers.Real):
                kind = type(figure).__name__
                raise InputError(f"seed {seed}: expected a number as its figure; got {kind}.")
            if not math.isfinite(figure):
                raise InputError(
                    f"seed {seed}: the figure is {figure}. A run with such a figure has failed: "
                    "leave the seed out, and it is counted as dropped."
                )
    seeds = sorted(figures.keys() & baseline.keys())
    largest = max((abs(float(x)) for s in seeds for x in (figures[s], baseline[s])), default=0.0)
    return Pairs(
        seeds=tuple(seeds),
        differences=tuple(float(figures[seed]) - float(baseline[seed]) for seed in seeds),
        dropped=tuple(sorted(figures.keys() ^ baseline.keys())),
        rounding=4 * EPS * largest,  # one or two per figure
    )


def sign_of(better: str, of: Iterable[str] = ()) -> int:
    """1 where higher is better, −1 where lower is."""
    if better not in BETTER:
        where = "".join(f" of {name!r}" for name in of)
        raise InputError(one_of(f"direction{where}", str(better), BETTER))
    return BETTER[better]

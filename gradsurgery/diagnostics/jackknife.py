"""Estimates that no batch biases, with their intervals by leaving out one batch at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradsurgery.diagnostics.moments import Moments
from gradsurgery.types import Array


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; NaN where the batches do not tell.

    Attributes:
        value: the estimate from all batches.
        low: the lower end.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return "unknown"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Samples:
    """The estimates from all batches, first, and without each one of them: N + 1 of each.

    Attributes:
        inner: [N + 1, n, n], ⟨ḡᵢ, ḡⱼ⟩ from pairs of different batches.
        squares: [N + 1, n], the mean of ‖gᵢ‖² over the batches.
    """

    inner: Array
    squares: Array

    @property
    def norms(self) -> Array:
        """‖ḡᵢ‖² [N + 1, n]; it may be negative where noise is all there is."""
        return np.diagonal(self.inner, axis1=1, axis2=2)

    @property
    def covariance(self) -> Array:
        """tr Cov gᵢ [N + 1, n] of the gradient of one batch."""
        return self.squares - self.norms


def estimates(moments: Moments) -> Samples:
    """The U-statistics of a group.

    ⟨ḡᵢ, ḡⱼ⟩ = (⟨Sᵢ, Sⱼ⟩ − Σₜ ⟨gᵢₜ, gⱼₜ⟩) / (N(N − 1)): products within a batch, which noise
    biases, are taken out. For i = j it is (N‖mean‖² − mean‖g‖²) / (N − 1).
    """
    grams, n = moments.grams, len(moments.grams)
    own = grams.sum(0)
    crossed = moments.against + np.swapaxes(moments.against, 1, 2)
    # Without batch t the sums are S − gₜ.
    totals = np.concatenate([moments.total[None], moments.total - crossed + grams])
    within = np.concatenate([own[None], own - grams])
    count = np.array([n] + [n - 1] * n, dtype=float)[:, None, None]
    inner = (totals - within) / (count * (count - 1))
    squares = np.diagonal(within / count, axis1=1, axis2=2)
    return Samples(inner, squares)


def interval(
    values: Array,
    level: float,
    transform: Callable[[Array], Array] | None = None,
    back: Callable[[Array], Array] | None = None,
) -> Interval:
    """The jackknife interval of a statistic: estimate ± t · √((N − 1)/N Σ (θₜ − θ̄)²).

    Args:
        values: [N + 1], from all batches and without each.
        level: of the interval.
        transform: to the scale on which the interval is symmetric, as log for a ratio.
        back: its inverse.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    if not np.isfinite(values).all():
        return Interval(*map(float, (values[0], np.nan, np.nan)))
    scaled = values if transform is None else transform(values)
    without = scaled[1:]
    n = len(without)
    error = np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))
    width = stdtrit(n - 1, (1 + level) / 2) * error
    ends = np.array([scaled[0] - width, scaled[0] + width])
    low, high = (ends if back is None else back(ends)).tolist()
    return Interval(float(values[0]), low, high)


def ratio(above: Array, below: Array, level: float, power: float = 1.0) -> Interval:
    """(above / below)^power with its interval on the log scale; NaN where one is not positive."""
    usable = (above > 0) & (below > 0)
    safe = np.where(usable, above, 1.0) / np.where(usable, below, 1.0)
    return interval(np.where(usable, safe**power, np.nan), level, np.log, np.exp)

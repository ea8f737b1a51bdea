"""The power of the paired t-test: what so many seeds can see, and how many it would take."""

import functools

import numpy as np

from gradsurgery.compare.statistics.intervals import Array
from gradsurgery.errors import InputError

POWER = 0.8
MOST = 100_000  # seeds; beyond, no one trains so many


def power(
    difference: float, sd: float, n: int, alpha: float = 0.05, ratio: float | None = None
) -> float:
    """The chance that the two-sided paired t-test sees a true mean difference.

    It is `P(|T| > t(1 − α/2; n − 1))` for T of the noncentral t distribution with n − 1 degrees of
    freedom and noncentrality `|Δ|/(σ √(1/n + ratio))`.

    Args:
        difference: the true mean difference Δ.
        sd: the standard deviation σ of the paired differences, above 0.
        n: the number of seeds, at least 2.
        alpha: the level; α/m is Holm's first step in a family of m.
        ratio: see `standard_error`; the noncentrality is then approximate.

    Raises:
        InputError: for other values.

    >>> from gradsurgery.compare.statistics import power
    >>> round(power(1.0, sd=1.0, n=10), 3)
    0.803
    """
    from scipy.special import stdtrit

    _check(sd, alpha)
    if n < 2 or not np.isfinite(difference):
        raise InputError(f"power: expected a finite difference and n >= 2; got {difference}, {n}.")
    centre = abs(difference) / (sd * np.sqrt(1 / n + (ratio or 0.0)))
    return _beyond(float(-stdtrit(n - 1, alpha / 2)), n - 1, float(centre))


def _beyond(limit: float, freedom: int, centre: float) -> float:
    """`P(|T| > limit)` for T of the noncentral t distribution.

    T = (Z + centre)/S with S = √(χ²/freedom), so that it is the mean over S of
    Φ(centre − limit S) + Φ(−centre − limit S).

    scipy.stats.nct (1.17) gives NaN for some values with few degrees of freedom, hence the
    quadrature: 64 nodes on each piece between the points at which the integrand bends.
    """
    from scipy.special import chdtri, gammaln, ndtr

    if centre > 1e6 * limit:
        return 1.0
    bend, width = centre / limit, 8 / limit
    far = float(np.sqrt(chdtri(freedom, 1e-18) / freedom))
    narrow = 8 / np.sqrt(2 * freedom)
    bends = [bend - width, bend, bend + width, 1 - narrow, 1.0, 1 + narrow]
    edges = np.unique(np.clip([0.0, *bends, far], 0.0, far))
    nodes, shares = _nodes()
    half = np.diff(edges)[:, None] / 2
    s = edges[:-1, None] + half * (nodes + 1)
    density = np.exp(
        np.log(2)
        + freedom / 2 * np.log(freedom / 2)
        - gammaln(freedom / 2)
        + (freedom - 1) * np.log(s)
        - freedom * s * s / 2
    )
    inside = ndtr(centre - limit * s) + ndtr(-centre - limit * s)
    return float(min(1.0, (half * shares * density * inside).sum()))


def seeds_needed(
    difference: float,
    sd: float,
    alpha: float = 0.05,
    ratio: float | None = None,
    wanted: float = POWER,
) -> int | None:
    """The smallest number of seeds with which a difference is seen with 80 % power.

    Args:
        difference, sd, alpha, ratio: see `power`.
        wanted: the power.

    Returns:
        None where none up to 100,000 will do: for no difference, and with a ratio, where more
        resamples of the same pool do not help any further.

    Raises:
        InputError: see `power`.

    >>> from gradsurgery.compare.statistics import seeds_needed
    >>> seeds_needed(1.0, sd=1.0), seeds_needed(1.0, sd=1.0, alpha=0.05 / 8)
    (10, 17)
    >>> seeds_needed(1.0, sd=1.0, ratio=0.25) is None
    True
    """
    low, high = 1, 2  # power(low) is too little, or low is 1
    while power(difference, sd, high, alpha, ratio) < wanted:
        if high == MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(difference, sd, middle, alpha, ratio) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def least_visible(
    sd: float, n: int, alpha: float = 0.05, ratio: float | None = None, wanted: float = POWER
) -> float:
    """The smallest true difference that n seeds see with 80 % power.

    It is the Δ at which `power` is the wanted one.

    Args:
        sd, n, alpha, ratio: see `power`.
        wanted: the power, above α.

    Raises:
        InputError: see `power`.

    >>> from gradsurgery.compare.statistics import least_visible
    >>> round(least_visible(sd=1.0, n=10), 2), round(least_visible(sd=1.0, n=10, alpha=0.05 / 8), 2)
    (1.0, 1.43)
    """
    from scipy.optimize import brentq

    _check(sd, alpha)
    if not alpha < wanted < 1:
        raise InputError(f"wanted: expected a power above alpha ({alpha}), below 1; got {wanted}.")
    high = sd
    while power(high, sd, n, alpha, ratio) < wanted:
        high *= 2
    return float(brentq(lambda x: power(x, sd, n, alpha, ratio) - wanted, 0.0, high, rtol=1e-9))


@functools.cache
def _nodes() -> tuple[Array, Array]:
    nodes, shares = np.polynomial.legendre.leggauss(64)
    return np.asarray(nodes), np.asarray(shares)


def _check(sd: float, alpha: float) -> None:
    if not 0 < sd < np.inf:
        raise InputError(f"sd: expected a standard deviation above 0; got {sd}.")
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected a number within 0 and 1; got {alpha}.")

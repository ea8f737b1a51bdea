"""Intervals and p-values of paired differences: arrays with the seeds on the last axis."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradsurgery.errors import InputError

Array = NDArray[np.float64]


def standard_error(differences: ArrayLike, ratio: float | None = None) -> Array:
    """The standard error of the mean of paired differences.

    It is s √(1/n), with the sample standard deviation s (divisor n − 1). With a ratio it is
    s √(1/n + ratio), for resamples of one pool, which have examples in common.

    With a correlation ρ between the differences of two resamples, the mean has the variance
    σ² (1/n + ρ (n − 1)/n), while E s² = σ² (1 − ρ). Their quotient is 1/n + ρ/(1 − ρ), and the
    ratio stands for ρ/(1 − ρ). Two cases:

    - Each resample tests on all that it does not train on. Nadeau and Bengio take ρ as the share
      of test examples, so that the ratio is n_test/n_train. Differences between training sets
      are neglected in it.
    - The test pool is fixed, and each resample trains on m of N examples. Two means over m of N
      examples correlate with m/N, so that the ratio is m/(N − m). It is too large by as much as
      initial weights and order add to the spread.

    Args:
        differences: [..., n], n at least 2.
        ratio: not negative; None or 0 for independent data.

    Returns:
        [...]

    Raises:
        InputError: for fewer than two differences, NaN or infinities, and a negative ratio.

    Source:
        Nadeau and Bengio 2003, Inference for the generalization error, Machine Learning 52,
        section 3 (the corrected resampled t-test).

    >>> from gradsurgery.compare.statistics import standard_error
    >>> float(standard_error([1.0, 2.0, 3.0, 4.0]).round(4))
    0.6455
    >>> float(standard_error([1.0, 2.0, 3.0, 4.0], ratio=0.25).round(4))
    0.9129
    """
    values = checked(differences)
    extra = 0.0 if ratio is None else float(ratio)
    if not 0 <= extra < np.inf:
        raise InputError(
            f"ratio: expected None or a number from 0, such as n_test/n_train; got {ratio}."
        )
    error: Array = deviation(values) * np.sqrt(1 / values.shape[-1] + extra)
    return error


def t_interval(
    differences: ArrayLike, level: float = 0.95, ratio: float | None = None
) -> tuple[Array, Array]:
    """The paired t interval of the mean difference.

    The bounds are d̄ ± t(1 − (1 − level)/2; n − 1) · se, with `standard_error`'s se.

    Args:
        differences: [..., n], n at least 2.
        level: the coverage, within 0 and 1.
        ratio: see `standard_error`.

    Returns:
        The lower bounds [...] and the upper bounds [...].

    Raises:
        InputError: see `standard_error`; also for a level outside 0 and 1.

    >>> from gradsurgery.compare.statistics import t_interval
    >>> [float(bound.round(3)) for bound in t_interval([0.4, 1.0, 0.1, 0.7, 0.8])]
    [0.161, 1.039]
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise InputError(f"level: expected a number within 0 and 1, such as 0.95; got {level}.")
    values = checked(differences)
    half = stdtrit(values.shape[-1] - 1, (1 + level) / 2) * standard_error(values, ratio)
    mean = values.mean(axis=-1)
    return mean - half, mean + half


def difference_p(differences: ArrayLike, ratio: float | None = None) -> Array:
    """The two-sided p-value of the paired t-test of a mean difference of zero.

    `p = 2 F(−|d̄|/se; n − 1)`, with the distribution function F of Student's t. Where nothing
    varies there is no test, and p is 1.

    Args:
        differences: [..., n], n at least 2.
        ratio: see `standard_error`.

    Returns:
        [...]

    Raises:
        InputError: see `standard_error`.

    >>> from gradsurgery.compare.statistics import difference_p
    >>> float(difference_p([0.4, 1.0, 0.1, 0.7, 0.8]).round(4))
    0.0192
    """
    from scipy.special import stdtr

    values = checked(differences)
    error = standard_error(values, ratio)
    t = np.divide(np.abs(values.mean(axis=-1)), error, out=np.zeros_like(error), where=error > 0)
    p: Array = 2 * stdtr(values.shape[-1] - 1, -t)
    return p


def equivalence_p(differences: ArrayLike, delta: float, ratio: float | None = None) -> Array:
    """The p-value of two one-sided tests that the mean difference lies within ±δ.

    `p = F((|d̄| − δ)/se; n − 1)`: the larger of the two one-sided p-values. It is below 0.05
    exactly where the 90 % t interval lies within ±δ. Where nothing varies p is 1.

    Args:
        differences: [..., n], n at least 2.
        delta: the difference δ > 0 from which on a difference matters.
        ratio: see `standard_error`.

    Returns:
        [...]

    Raises:
        InputError: see `standard_error`; also for a δ that is not above 0.

    Source:
        Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15.

    >>> from gradsurgery.compare.statistics import equivalence_p
    >>> float(equivalence_p([0.4, 1.0, 0.1, 0.7, 0.8], delta=1.0).round(4))
    0.0323
    """
    from scipy.special import stdtr

    values, delta = checked(differences), checked_delta(delta)
    error = standard_error(values, ratio)
    distance = np.abs(values.mean(axis=-1)) - delta
    t = np.divide(distance, error, out=np.full_like(error, np.inf), where=error > 0)
    p: Array = stdtr(values.shape[-1] - 1, t)
    return p


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values: the chance of any false rejection in the family stays at α.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎ the adjusted value of p₍ᵢ₎ is max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎).
    It holds under any dependence, so also for differences to one common baseline.

    Args:
        p_values: [..., m], a family on the last axis.

    Returns:
        [..., m], in the order given.

    Raises:
        InputError: for what is no probability.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6.

    >>> from gradsurgery.compare.statistics import holm
    >>> holm([0.01, 0.04, 0.03, 0.005]).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim == 0 or not np.all((p >= 0) & (p <= 1)):
        raise InputError(f"holm: expected p-values from 0 to 1, [..., m]; got {p_values!r}.")
    order = np.argsort(p, axis=-1, kind="stable")
    left = np.arange(p.shape[-1], 0, -1)
    stepped = np.minimum(1, left * np.take_along_axis(p, order, axis=-1))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(stepped, axis=-1), axis=-1)
    return adjusted


def deviation(differences: ArrayLike) -> Array:
    """The sample standard deviation, divisor n − 1, of differences of any size [..., n] -> [...].

    They are scaled by a power of two first: the squares of a diverged run's 1e200 would overflow.
    """
    values = checked(differences)
    size = np.abs(values).max(axis=-1, keepdims=True)
    _, exponent = np.frexp(size)
    scaled: Array = np.ldexp(np.ldexp(values, -exponent).std(axis=-1, ddof=1), exponent[..., 0])
    return scaled


def checked(differences: ArrayLike) -> Array:
    """The differences as float64 [..., n], n at least 2, all finite."""
    values = np.asarray(differences, dtype=np.float64)
    n = values.shape[-1] if values.ndim else 0
    if n < 2:
        seeds = f"{n} seed" if n == 1 else f"{n} seeds"
        raise InputError(f"{seeds}: the spread over seeds needs at least 2; give more seeds.")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(
            f"{count} of {values.size} differences are NaN or infinite: "
            "leave out the runs that failed."
        )
    return values


def checked_delta(delta: float) -> float:
    """δ as a float, above 0 and finite."""
    if not 0 < delta < np.inf:
        raise InputError(
            f"delta: expected a number above 0, the difference that matters; got {delta}."
        )
    return float(delta)

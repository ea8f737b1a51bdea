"""Sentences of a comparison, written from its numbers."""

import math

ESTIMAND = (
    "The mean difference is over seeds. A seed varies the initial weights, the order, the split "
    "into training and validation data, and the noise. One test pool is fixed for all seeds: the "
    "plain interval is about this pool and these data, and not about others."
)
CORRECTED = (
    "The corrected interval is about new data of the same kind: resamples of one pool have "
    "examples in common, and it allows for that (Nadeau and Bengio 2003)."
)
EQUIVALENCE = "Equivalence is tested per strategy at 5 % and is not part of the Holm family."


def number(value: float, unit: str = "", sign: bool = False, like: float | None = None) -> str:
    """A figure in three significant digits of itself, or of a figure that it stands beside.

    >>> number(1.2345, "points"), number(0.00012345), number(0.5, sign=True), number(1e200)
    ('1.23 points', '0.000123', '+0.500', '1e+200')
    """
    size = abs(value if like is None else like)
    if size and not 1e-5 <= size < 1e7:  # a diverged run's, for example
        return f"{value:{'+' if sign else ''}.3g}" + (f" {unit}" if unit else "")
    digits = max(0, 2 - math.floor(math.log10(size))) if size and math.isfinite(size) else 2
    return f"{value:{'+' if sign else ''}.{digits}f}" + (f" {unit}" if unit else "")


def plain(value: float, unit: str = "") -> str:
    """A number as a user wrote it, with its unit.

    >>> plain(1.0, "points"), plain(0.5, "points"), plain(1.0)
    ('1 point', '0.5 points', '1')
    """
    one = unit.removesuffix("s") if value == 1 and len(unit) > 2 else unit
    return f"{value:g}" + (f" {one}" if one else "")


def bounds(low: float, high: float, unit: str = "") -> str:
    """An interval in words, both ends with the same decimals.

    >>> bounds(-0.00123, 1.5, "points")
    '-0.00 to +1.50 points'
    """
    ends = (number(end, sign=True, like=max(abs(low), abs(high))) for end in (low, high))
    return " to ".join(ends) + (f" {unit}" if unit else "")


def probability(p: float) -> str:
    """A p-value.

    >>> probability(0.0123), probability(1e-7)
    ('p = 0.012', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def seeds(count: int) -> str:
    """A number of seeds."""
    return f"{count} seed" + ("" if count == 1 else "s")

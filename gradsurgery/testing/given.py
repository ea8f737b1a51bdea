"""hypothesis strategies for adversarial Jacobians and Gram matrices."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gradsurgery.errors import InputError, extra, one_of
from gradsurgery.testing.adversarial import SPREADS, make_sample
from gradsurgery.testing.kinds import KINDS, least_size
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def drawn_samples(
    min_n: int = 1,
    max_n: int = 8,
    *,
    kinds: Iterable[str] | None = None,
    max_ratio: float = 1e6,
    max_scale: float = 1e20,
) -> "SearchStrategy[Sample]":
    """A hypothesis strategy for `Sample` objects.

    It shrinks towards few objectives, equal norms and scale 1.

    Args:
        min_n: the least number of objectives. Kinds that need more are drawn with what they need.
        max_n: the largest.
        kinds: some of `KINDS`; None is all that fit.
        max_ratio: the largest ratio between two norms.
        max_scale: overall factors lie between 1/max_scale and max_scale.

    Raises:
        InputError: for kinds that do not exist or do not fit.
    """
    from math import log10

    with extra("testing", "drawing samples"):
        from hypothesis import strategies as st

    chosen = KINDS if kinds is None else tuple(kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise InputError(one_of("kind of sample", str(kind), KINDS))
    fitting = [kind for kind in chosen if least_size(kind) <= max_n]
    if not 1 <= min_n <= max_n or not fitting or max_ratio < 1 or max_scale < 1:
        raise InputError(
            "expected 1 <= min_n <= max_n, a kind that fits, and ratios of 1 or more; "
            f"got {min_n}, {max_n}, {list(chosen)}, {max_ratio}, {max_scale}."
        )
    spreads = [s for s in SPREADS if s < log10(max_ratio)] + [log10(max_ratio)]
    limit = int(log10(max_scale) / log10(2))

    def build(kind: str, n: int, spread: float, exponent: int, seed: int) -> Sample:
        return make_sample(kind, n, seed, spread=spread, scale=2.0**exponent)

    return st.builds(
        build,
        st.sampled_from(fitting),
        st.integers(min_n, max_n),
        st.sampled_from(spreads),
        st.integers(-limit, limit),
        st.integers(0, 2**32 - 1),
    )


def jacobians(
    min_n: int = 1,
    max_n: int = 8,
    *,
    kinds: Iterable[str] | None = None,
    max_ratio: float = 1e6,
    max_scale: float = 1e20,
) -> "SearchStrategy[Array]":
    """A hypothesis strategy for adversarial Jacobians J [n, d], float64.

    The arguments are those of `drawn_samples`.

    Example:
        >>> from hypothesis import given, settings
        >>> from gradsurgery.testing import jacobians
        >>> @settings(max_examples=5)
        ... @given(jacobians(max_n=3))
        ... def finds_rows(rows):
        ...     assert rows.shape[0] <= 3
        >>> finds_rows()
    """
    return drawn_samples(min_n, max_n, kinds=kinds, max_ratio=max_ratio, max_scale=max_scale).map(
        lambda sample: sample.jacobian
    )


def grams(
    min_n: int = 1,
    max_n: int = 8,
    *,
    kinds: Iterable[str] | None = None,
    max_ratio: float = 1e6,
    max_scale: float = 1e20,
) -> "SearchStrategy[Array]":
    """A hypothesis strategy for adversarial Gram matrices G = JJᵀ [n, n], float64.

    The cosines come first and the norms after, so that small rows keep their relative accuracy. The
    arguments are those of `drawn_samples`.

    Example:
        >>> from hypothesis import given, settings
        >>> from gradsurgery.testing import grams
        >>> @settings(max_examples=5)
        ... @given(grams(max_n=3))
        ... def is_symmetric(gram):
        ...     assert (gram == gram.T).all()
        >>> is_symmetric()
    """
    return drawn_samples(min_n, max_n, kinds=kinds, max_ratio=max_ratio, max_scale=max_scale).map(
        lambda sample: sample.gram
    )

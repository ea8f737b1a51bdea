"""Adversarial Jacobians and Gram matrices of prescribed geometry.

Directions come first and norms after, so that small rows stay exact.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradsurgery.errors import InputError, one_of
from gradsurgery.testing.kinds import BUILDERS, KINDS
from gradsurgery.testing.sample import Sample

# every number up to 20 and two beyond; the small ones, where edge cases lie, more often
SIZES = (
    *range(1, 11), 2, 3, 11, 12, 4, 1, 13, 5, 14, 2, 3, 15, 6, 16, 4, 17, 1, 7, 18, 8, 3, 19, 5,
    20, 2, 25, 6, 33,
)  # fmt: skip
SPREADS = (0.0, 1.0, 3.0, 6.0, 9.0)  # log10 of the largest ratio between two norms
TENSORS = 7  # the largest number of parameter tensors
SCALE = 20.0  # log10 of the largest overall factor
# kinds that came later: they take every 15th draw, so that the other draws stay
ADDED = KINDS[KINDS.index("cancelling in float32") :]
EVERY = 15


def make_sample(
    kind: str, n: int, seed: Any = 0, *, spread: float = 0.0, scale: float = 1.0
) -> Sample:
    """One sample of a kind.

    Args:
        kind: one of `KINDS`.
        n: the number of objectives; raised to the least that the kind makes sense for.
        seed: anything `numpy.random.default_rng` takes.
        spread: norms are spread log-uniformly over 1 to 10^spread. In "nearly cancelling" they are
            at both ends.
        scale: a factor on the whole Jacobian.

    Raises:
        InputError: for an unknown kind, with the nearest match.

    Example:
        >>> from gradsurgery.testing import make_sample
        >>> make_sample("opposite", 2, spread=6.0).count
        2
    """
    if kind not in BUILDERS:
        raise InputError(one_of("kind of sample", str(kind), KINDS))
    least, build = BUILDERS[kind]
    n = max(int(n), least)
    rng = np.random.default_rng(seed)
    units = build(rng, n)
    norms = 10.0 ** rng.uniform(0, spread, n)
    if kind == "nearly cancelling" and n > 2:  # the large rows are those that cancel
        norms[:2], norms[2:] = 10.0**spread, 1.0
    norms = np.where(np.linalg.norm(units, axis=1) > 0, norms * scale, 0.0)
    d = units.shape[1]
    cuts = []
    if d > 1:
        count = min(d - 1, int(rng.integers(TENSORS)))
        cuts = sorted(rng.choice(np.arange(1, d), size=count, replace=False).tolist())
    splits = tuple(np.diff([0, *cuts, d]).tolist())
    return Sample(kind, units, norms, splits, draw=int(rng.integers(2**31)))


def samples(
    count: int = 300,
    *,
    seed: int = 0,
    kinds: Iterable[str] | None = None,
    sizes: Sequence[int] = SIZES,
    scales: bool = True,
) -> list[Sample]:
    """Adversarial Jacobians, and their Gram matrices, in the order of their size.

    Every kind of geometry comes with every number of objectives. Independently of these the norms
    are equal or spread over factors of 10, 1e3, 1e6 and 1e9. Half of the Jacobians have an overall
    scale from 1e-20 to 1e20, the ends included. The same arguments give the same samples.

    Args:
        count: how many.
        seed: another seed, other numbers.
        kinds: some of `KINDS`; None is all of them.
        sizes: the numbers of objectives.
        scales: False leaves the overall scale at 1.

    Returns:
        `Sample` objects with `.jacobian` [n, d], `.gram` [n, n], `.block_grams` [k, n, n], `.kind`
        and `.norms`.

    Raises:
        InputError: for an unknown kind, with the nearest match, or sizes below 1.

    Example:
        >>> from gradsurgery.testing import samples
        >>> [s.kind for s in samples(3, sizes=[2])]
        ['normal', 'square', 'orthogonal']
    """
    chosen = KINDS if kinds is None else tuple(kinds)
    for kind in chosen:
        if kind not in BUILDERS:
            raise InputError(one_of("kind of sample", str(kind), KINDS))
    if not chosen or not sizes or min(sizes) < 1:
        raise InputError(
            "samples: expected kinds, and sizes of 1 or more; "
            f"got kinds {list(chosen)} and sizes {list(sizes)}."
        )
    found = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        if kinds is None and i % EVERY == EVERY - 1:
            drawn, turn, k = ADDED, *divmod(i // EVERY, len(ADDED))
        else:
            drawn = KINDS[: -len(ADDED)] if kinds is None else chosen
            turn, k = divmod(i, len(drawn))
        spread = SPREADS[rng.integers(len(SPREADS))]
        exponent = rng.uniform(-SCALE, SCALE) if rng.random() < 0.7 else SCALE * rng.choice([-1, 1])
        scale = 10.0**exponent if scales and rng.random() < 0.5 else 1.0
        n = sizes[(turn + k) % len(sizes)]
        found.append(make_sample(drawn[k], n, [seed, i, 1], spread=spread, scale=scale))
    return sorted(found, key=lambda sample: sample.count)

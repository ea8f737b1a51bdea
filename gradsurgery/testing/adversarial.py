"""Adversarial Jacobians and Gram matrices, built by construction: directions first, norms after, so that small rows stay exact."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsurgery.errors import InputError, one_of

Array = NDArray[np.float64]
Builder = Callable[[np.random.Generator, int], Array]
# every number up to 20 and two beyond; the small ones, where edge cases lie, more often
SIZES = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    2,
    3,
    11,
    12,
    4,
    1,
    13,
    5,
    14,
    2,
    3,
    15,
    6,
    16,
    4,
    17,
    1,
    7,
    18,
    8,
    3,
    19,
    5,
    20,
    2,
    25,
    6,
    33,
)
SPREADS = (0.0, 1.0, 3.0, 6.0, 9.0)  # log10 of the largest ratio between two norms
TENSORS = 7  # the largest number of parameter tensors
SCALE = 20.0  # log10 of the largest overall factor
_kinds: dict[str, tuple[int, Builder]] = {}


@dataclass(frozen=True, eq=False)
class Sample:
    """One adversarial Jacobian: rows of a prescribed geometry, with prescribed norms.

    Attributes:
        kind: how it was built, one of `KINDS`, or "given".
        units: the directions of the rows [n, d]; each of length one, or zero.
        norms: ‖gᵢ‖ [n].
        splits: how many of the d coordinates belong to each of the k parameter tensors.
        names: the objectives' names, which move with the rows.
        draw: which random numbers a randomised strategy is given on it.

    Example:
        >>> from gradsurgery.testing import Sample
        >>> Sample.of([[3.0, 4.0], [0.0, 2.0]]).norms.tolist()
        [5.0, 2.0]
    """

    kind: str
    units: Array
    norms: Array
    splits: tuple[int, ...]
    names: tuple[str, ...] = ()
    draw: int = 0

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(map(str, range(len(self.norms)))))

    @classmethod
    def of(
        cls, jacobian: Any, splits: Sequence[int] | None = None, kind: str = "given", draw: int = 0
    ) -> "Sample":
        """A sample from a Jacobian [n, d], which it holds to the last bit."""
        rows = np.array(jacobian, dtype=np.float64)
        if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
            raise InputError(
                f"jacobian: expected finite numbers [n, d]; got {rows.tolist() if rows.size < 20 else list(rows.shape)}."
            )
        largest = np.abs(rows).max(axis=1)
        safe = np.where(largest > 0, largest, 1.0)  # so that squares stay in range
        norms = safe * np.linalg.norm(rows / safe[:, None], axis=1)
        units = rows / np.where(norms > 0, norms, 1.0)[:, None]
        made = cls(
            kind, units, norms, tuple(splits) if splits is not None else (rows.shape[1],), draw=draw
        )
        made.__dict__["jacobian"] = rows  # not the product of directions and norms, which rounds
        return made

    @property
    def count(self) -> int:
        """n, the number of objectives."""
        return len(self.norms)

    @cached_property
    def jacobian(self) -> Array:
        """J [n, d]."""
        return self.units * self.norms[:, None]

    @cached_property
    def gram(self) -> Array:
        """G = JJᵀ [n, n], from the cosines and the norms."""
        cosines = self.units @ self.units.T
        np.fill_diagonal(cosines, 1.0)
        return (cosines + cosines.T) / 2 * np.outer(self.norms, self.norms)

    @cached_property
    def block_grams(self) -> Array:
        """[k, n, n], one Gram matrix per parameter tensor."""
        pieces = np.split(self.units, np.cumsum(self.splits)[:-1], axis=1)
        return np.stack([p @ p.T for p in pieces]) * np.outer(self.norms, self.norms)

    @cached_property
    def rank(self) -> int:
        """The rank of J, found on rows of length one; below 1e-6 lies the rounding of float32."""
        return int(np.linalg.matrix_rank(self.units, tol=1e-6))

    @cached_property
    def clear(self) -> bool:
        """Whether float32 tells the rank too: no eigenvalue of the cosines lies between its rounding and real."""
        values = np.linalg.svd(self.units, compute_uv=False) ** 2
        return not ((values > 1e-12) & (values < 1e-2)).any()

    def hull(self, divisors: Array | None = None) -> tuple[float, float]:
        """‖d‖² and Σ wⱼnⱼ at the min-norm point d = Jᵀw of the rows' convex hull.

        Found on the rows themselves by non-negative least squares, apart from the library's own solvers.

        Args:
            divisors: cᵢ > 0 [n]: ask it of the rows gᵢ/cᵢ.
        """
        found: dict[bytes, tuple[float, float]] = self.__dict__.setdefault(
            "_hulls", {}
        )  # samples serve many strategies
        key = b"" if divisors is None else divisors.tobytes()
        if key not in found:
            found[key] = self._hull(divisors)
        return found[key]

    def _hull(self, divisors: Array | None) -> tuple[float, float]:
        from scipy.optimize import nnls

        norms = self.norms / (1.0 if divisors is None else divisors)
        if (norms == 0).any():
            return 0.0, 0.0
        shares = norms.min() / norms
        target = np.zeros(self.units.shape[1] + 1)
        target[-1] = 1.0
        try:
            found = nnls(np.vstack([self.units.T, shares]), target, maxiter=100 * self.count + 100)[
                0
            ]
        except (
            RuntimeError
        ):  # scipy's iteration limit: take it for stationary, so that nothing is judged on it
            return 0.0, 0.0
        total = float(shares @ found)
        if total <= 0:
            return 0.0, 0.0
        scaled = found * (norms.min() / total)
        point = self.units.T @ scaled
        return float(point @ point), float(scaled.sum())

    def distance(self, divisors: Array | None = None) -> float:
        """‖d‖² / (Σ wⱼnⱼ)² at that point: 0 where Pareto stationary, 1 where all rows agree."""
        squared, size = self.hull(divisors)
        return squared / size**2 if size > 0 else 0.0

    @cached_property
    def conditioning(self) -> float:
        """The smaller `distance` of the rows and of the rows at length one: how well a common descent direction is determined."""
        safe = np.where(self.norms > 0, self.norms, 1.0)
        return min(self.distance(), self.distance(safe))

    def __str__(self) -> str:
        live = self.norms[self.norms > 0]
        ratio = f"norms {live.min():.0e} to {live.max():.0e}" if len(live) else "all zero"
        return (
            f"{self.kind}, n = {self.count}, d = {self.units.shape[1]}, rank {self.rank}, {ratio}"
        )


def _kind(name: str, least: int = 1) -> Callable[[Builder], Builder]:
    def add(build: Builder) -> Builder:
        _kinds[name] = (least, build)
        return build

    return add


def _gaussian(rng: np.random.Generator, n: int, d: int) -> Array:
    return _unit(rng.standard_normal((n, d)))


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1.0, lengths))


@_kind("normal")
def _normal(rng: np.random.Generator, n: int) -> Array:
    """Standard normal rows in 2n dimensions."""
    return _gaussian(rng, n, 2 * n)


@_kind("square")
def _square(rng: np.random.Generator, n: int) -> Array:
    """Standard normal rows in n dimensions."""
    return _gaussian(rng, n, n)


@_kind("orthogonal")
def _orthogonal(rng: np.random.Generator, n: int) -> Array:
    """The coordinate axes, in any order and with either sign."""
    return np.asarray((np.eye(n) * rng.choice([-1.0, 1.0], n))[rng.permutation(n)])


@_kind("low rank", 2)
def _low_rank(rng: np.random.Generator, n: int) -> Array:
    """Standard normal rows in n/2 dimensions."""
    return _gaussian(rng, n, max(1, n // 2))


@_kind("strongly stationary", 2)
def _strong(rng: np.random.Generator, n: int) -> Array:
    """Some combination with positive weights for every row is zero."""
    rows = _gaussian(rng, n, n + 1)
    rows[-1] = -(rng.dirichlet(np.ones(n - 1)) + 1e-3) @ rows[:-1]
    return _unit(rows)


@_kind("weakly stationary", 3)
def _weak(rng: np.random.Generator, n: int) -> Array:
    """A combination with non-negative weights is zero, but none that gives weight to every row."""
    k = int(rng.integers(2, n))  # rows that cancel among themselves
    rows = np.zeros((n, n + 1))
    rows[:k, 1:] = _strong(rng, k) @ np.linalg.qr(rng.standard_normal((n, n)))[0][: k + 1]
    rows[k:] = _gaussian(rng, n - k, n + 1)
    rows[k:, 0] = 0.1 + np.abs(
        rows[k:, 0]
    )  # only these rows have the first coordinate, all with the same sign
    return _unit(rows)


@_kind("not weakly stationary")
def _not_weak(rng: np.random.Generator, n: int) -> Array:
    """One direction improves every row, by a margin that may be small; beside it they pull apart."""
    rows = _gaussian(rng, n, n + 1)
    rows -= rows.mean(0)
    rows[:, 0] = 10.0 ** rng.uniform(-3, 0) * (1 + rng.uniform(0, 1, n))
    return _unit(rows)


@_kind("pulling apart", 2)
def _apart(rng: np.random.Generator, n: int) -> Array:
    """Nearly zero mean: each row against all the others."""
    rows = rng.standard_normal((n, n + 1))
    return _unit(rows - rows.mean(0) * rng.uniform(0.9, 1.1))


@_kind("two camps", 2)
def _camps(rng: np.random.Generator, n: int) -> Array:
    """Two camps of nearly equal rows, nearly opposite to each other."""
    rows = 10.0 ** rng.uniform(-4, -0.5) * _gaussian(rng, n, n + 1)
    rows[:, 0] += np.where(np.arange(n) % 2, 1.0, -1.0)
    return _unit(rows)


@_kind("duplicates", 2)
def _duplicates(rng: np.random.Generator, n: int) -> Array:
    """Two rows of one direction."""
    rows = _gaussian(rng, n, n + 1)
    i, j = rng.permutation(n)[:2]
    rows[i] = rows[j]
    return rows


@_kind("opposite", 2)
def _opposite(rng: np.random.Generator, n: int) -> Array:
    """Two rows that are exactly opposite."""
    rows = _gaussian(rng, n, n + 1)
    i, j = rng.permutation(n)[:2]
    rows[i] = -rows[j]
    return rows


@_kind("nearly cancelling", 2)
def _cancelling(rng: np.random.Generator, n: int) -> Array:
    """The first two rows are opposite but for 1e-5 to 1e-2."""
    rows = _gaussian(rng, n, n + 1)
    rows[1] = -rows[0] + 10.0 ** rng.uniform(-5, -2) * rng.standard_normal(n + 1)
    return _unit(rows)


@_kind("zero gradient")
def _zero(rng: np.random.Generator, n: int) -> Array:
    """Standard normal rows, one of them zero."""
    rows = _gaussian(rng, n, n + 1)
    rows[rng.integers(n)] = 0.0
    return rows


@_kind("cancelling in float32", 3)
def _cancelling_single(rng: np.random.Generator, n: int) -> Array:
    """Rows in float32: two to four cancel up to its rounding, the others are free."""
    rows = rng.standard_normal((n, 2 * n)).astype(np.float32)
    k = int(rng.integers(2, min(5, n)))
    shares = rng.uniform(0.2, 5.0, k - 1).astype(np.float32)
    rows[k - 1] = -(shares[:, None] * rows[: k - 1]).sum(0)
    return _unit(rows[rng.permutation(n)].astype(np.float64))


KINDS = tuple(_kinds)
ADDED = KINDS[
    KINDS.index("cancelling in float32") :
]  # these take every 15th draw, so that the other draws stay
EVERY = 15


def make_sample(
    kind: str, n: int, seed: Any = 0, *, spread: float = 0.0, scale: float = 1.0
) -> Sample:
    """One sample of a kind.

    Args:
        kind: one of `KINDS`.
        n: the number of objectives; raised to the least that the kind makes sense for.
        seed: anything `numpy.random.default_rng` takes.
        spread: norms are spread log-uniformly over 1 to 10^spread ("nearly cancelling": both ends at once).
        scale: a factor on the whole Jacobian.

    Raises:
        InputError: for an unknown kind, with the nearest match.

    Example:
        >>> from gradsurgery.testing import make_sample
        >>> make_sample("opposite", 2, spread=6.0).count
        2
    """
    if kind not in _kinds:
        raise InputError(one_of("kind of sample", str(kind), KINDS))
    least, build = _kinds[kind]
    n = max(int(n), least)
    rng = np.random.default_rng(seed)
    units = build(rng, n)
    norms = 10.0 ** rng.uniform(0, spread, n)
    if kind == "nearly cancelling" and n > 2:  # the large rows are those that cancel
        norms[:2], norms[2:] = 10.0**spread, 1.0
    norms = np.where(np.linalg.norm(units, axis=1) > 0, norms * scale, 0.0)
    d = units.shape[1]
    cuts = (
        sorted(
            rng.choice(
                np.arange(1, d), size=min(d - 1, int(rng.integers(TENSORS))), replace=False
            ).tolist()
        )
        if d > 1
        else []
    )
    return Sample(
        kind, units, norms, tuple(np.diff([0, *cuts, d]).tolist()), draw=int(rng.integers(2**31))
    )


def samples(
    count: int = 300,
    *,
    seed: int = 0,
    kinds: Iterable[str] | None = None,
    sizes: Sequence[int] = SIZES,
    scales: bool = True,
) -> list[Sample]:
    """Adversarial Jacobians, and their Gram matrices, in the order of their size.

    Every kind of geometry is met with every number of objectives. Independently of these the norms are equal or spread
    over factors of 10, 1e3, 1e6 and 1e9, and half of the Jacobians have an overall scale from 1e-20 to 1e20, the ends
    included. The same arguments give the same samples.

    Args:
        count: how many.
        seed: another seed, other numbers.
        kinds: some of `KINDS`; None is all of them.
        sizes: the numbers of objectives.
        scales: False leaves the overall scale at 1.

    Returns:
        `Sample` objects with `.jacobian` [n, d], `.gram` [n, n], `.block_grams` [k, n, n], `.kind` and `.norms`.

    Raises:
        InputError: for an unknown kind, with the nearest match, or sizes below 1.

    Example:
        >>> from gradsurgery.testing import samples
        >>> [s.kind for s in samples(3, sizes=[2])]
        ['normal', 'square', 'orthogonal']
    """
    chosen = KINDS if kinds is None else tuple(kinds)
    for kind in chosen:
        if kind not in _kinds:
            raise InputError(one_of("kind of sample", str(kind), KINDS))
    if not chosen or not sizes or min(sizes) < 1:
        raise InputError(
            f"samples: expected kinds, and sizes of 1 or more; got kinds {list(chosen)} and sizes {list(sizes)}."
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
        found.append(
            make_sample(
                drawn[k], sizes[(turn + k) % len(sizes)], [seed, i, 1], spread=spread, scale=scale
            )
        )
    return sorted(found, key=lambda sample: sample.count)


def least_size(kind: str) -> int:
    """The least number of objectives that a kind makes sense for."""
    return _kinds[kind][0]

"""Kinds of adversarial geometry: rows of length one, or zero, built by construction."""

from collections.abc import Callable

import numpy as np

from gradsurgery.types import Array

Builder = Callable[[np.random.Generator, int], Array]
BUILDERS: dict[str, tuple[int, Builder]] = {}  # name -> the least n that it makes sense for, rows


def _kind(name: str, least: int = 1) -> Callable[[Builder], Builder]:
    def add(build: Builder) -> Builder:
        BUILDERS[name] = (least, build)
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
    # only these rows have the first coordinate, all with the same sign
    rows[k:, 0] = 0.1 + np.abs(rows[k:, 0])
    return _unit(rows)


@_kind("not weakly stationary")
def _not_weak(rng: np.random.Generator, n: int) -> Array:
    """One direction improves every row, by a margin that may be small; beside it they disagree."""
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


KINDS = tuple(BUILDERS)


def least_size(kind: str) -> int:
    """The least number of objectives that a kind makes sense for."""
    return BUILDERS[kind][0]

"""Adversarial Gram matrices and Jacobians, built by construction: cosines first, norms after, so that small rows stay exact."""

import numpy as np

KINDS = ("normal", "square", "low-rank", "anti", "duplicate", "opposite", "strong", "weak", "conflict", "cancel", "zero")


def unit(rows):
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def unit_rows(rng, n, kind):
    """Unit rows [n, d] of a kind; `strong` and `weak` are Pareto stationary with all or some positive weights."""
    d = {"normal": 2 * n, "square": n, "low-rank": max(1, n // 2)}.get(kind, n + 1)
    rows = rng.standard_normal((n, d))
    if kind == "anti":
        rows -= rows.mean(0) * rng.uniform(0.9, 1.1)
    rows = unit(rows)
    if n >= 2:
        if kind == "duplicate":
            i, j = rng.permutation(n)[:2]
            rows[i] = rows[j]
        elif kind == "opposite":
            rows[1] = -rows[0]
        elif kind == "strong":
            rows[-1] = -(rng.dirichlet(np.ones(n))[:-1] @ rows[:-1])
        elif kind == "weak":
            k = int(rng.integers(2, n + 1))
            rows[k - 1] = -rows[: k - 1].sum(0)
        elif kind == "conflict":
            spread = 10.0 ** rng.uniform(-4, -0.5)
            rows = spread * rows + np.where(np.arange(n) % 2, 1.0, -1.0)[:, None] * np.eye(1, d)
        elif kind == "cancel":
            rows[1] = -rows[0] + 10.0 ** rng.uniform(-5, -2) * rng.standard_normal(d)
    return unit(rows)


def norms_of(rng, n, kind, spread):
    norms = 10.0 ** rng.uniform(0, spread, n)
    if kind == "cancel" and n > 2:  # large rows that nearly cancel beside small ones
        norms[:2] = 10.0**spread
        norms[2:] = 1.0
    if kind == "zero":
        norms[rng.integers(n)] = 0.0
    return norms


def jacobian(rng, n, kind, spread=0.0, scale=1.0):
    return unit_rows(rng, n, kind) * norms_of(rng, n, kind, spread)[:, None] * scale


def gram(rng, n, kind, spread=0.0, scale=1.0):
    rows, norms = unit_rows(rng, n, kind), norms_of(rng, n, kind, spread) * scale
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 1.0)
    return (cosines + cosines.T) / 2 * np.outer(norms, norms)

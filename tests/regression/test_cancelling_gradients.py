"""Gradients that cancel: where rounding decides, a projection stays short and no direction is made
of rounding.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery import solvers
from gradsurgery.testing import ConformanceError, check_strategy, samples


def test_cagrad_conflicts_with_no_gradient_of_an_inexact_gram():
    """Where the mean is short beside the gradients, at eps = 1e-6 (float32), it was returned as it
    is.
    """
    rows = np.array([[-1.0], [0.997]])
    for radius in (1.0, 2.0):
        weights = gs.get_strategy("cagrad", c=radius).weights(rows @ rows.T, eps=1e-6)
        assert (rows @ rows.T @ weights).min() >= -1e-9


def cancelling(rng, n, k, spread=0.0):
    """Rows in float32, in any order, of which k cancel up to its rounding; norms over 10^spread."""
    rows = rng.standard_normal((n, 2 * n + 3)).astype(np.float32)
    shares = rng.uniform(0.2, 5, k - 1).astype(np.float32)
    rows[k - 1] = -(shares[:, None] * rows[: k - 1]).sum(0)
    rows *= 10 ** rng.uniform(0, spread, (n, 1)).astype(np.float32)
    return rows[rng.permutation(n)].astype(np.float64)


SIZES = [(3, 2), (4, 2), (5, 3), (6, 4), (12, 4), (32, 3)]


@pytest.mark.parametrize("spread", [0, 6])
@pytest.mark.parametrize("name", ["dualproj", "upgrad"])
def test_a_projection_is_no_longer_than_what_it_projects_where_gradients_cancel(name, spread):
    rng, chosen = np.random.default_rng([1, spread]), gs.get_strategy(name)
    solve = solvers.project_dual_cone if name == "dualproj" else solvers.project_each
    for n, k in SIZES:
        for _ in range(8):
            rows = cancelling(rng, n, k, spread)
            norms = np.linalg.norm(rows, axis=1)
            longest = np.linalg.norm(rows.mean(0)) if name == "dualproj" else norms.mean()
            for gram in (rows @ rows.T, (rows @ rows.T).astype(np.float32)):
                weights = chosen.weights(gram)
                d = rows.T @ weights
                assert np.linalg.norm(d) <= longest * (1 + 1e-6)
                least = (rows @ d / norms).min() / (abs(weights) @ norms)
                assert least >= (-1e-5 if gram.dtype == np.float32 else -1e-10)
                assert solve(gram).converged


@pytest.mark.parametrize("name", ["dualproj", "upgrad", "cagrad(c=1.0)"])
def test_the_order_of_the_losses_does_not_decide_where_gradients_cancel(name):
    rng, chosen = np.random.default_rng(2), gs.get_strategy(name)
    for n, k in SIZES:
        for _ in range(8):
            rows, order = cancelling(rng, n, k, 3), rng.permutation(n)
            d = rows.T @ chosen.weights(rows @ rows.T)
            other = rows[order].T @ chosen.weights(rows[order] @ rows[order].T)
            assert np.linalg.norm(d - other) <= 1e-7 * np.linalg.norm(rows, axis=1).mean()


def test_torch_gradients_in_float32_are_projected_as_they_are():
    rng = np.random.default_rng(3)
    for _ in range(100):
        rows = torch.from_numpy(cancelling(rng, 3, 2)).float()
        d = gs.get_strategy("dualproj")(rows)
        assert d.norm() <= rows.mean(0).norm() * (1 + 1e-5)


def test_well_posed_projections_are_what_they_were():
    """The definition, by non-negative least squares on the rows themselves."""
    from scipy.optimize import nnls

    rng = np.random.default_rng(4)
    for n in (2, 3, 5, 8, 20):
        for bend in (1.0, 1e-2, 1e-4):  # the last is handled as one that may be flat
            rows = rng.standard_normal((n, 2 * n))
            rows[-1] = -rows[:-1].sum(0) + bend * rows[-1]
            allowed = 1e-10 if bend > 1e-3 else 1e-7
            norms = np.linalg.norm(rows, axis=1)
            units, start = rows / norms[:, None], norms / n
            expected = units.T @ (start + nnls(units.T, -(units.T @ start), maxiter=1000)[0])
            found = rows.T @ solvers.project_dual_cone(rows @ rows.T).value
            assert np.linalg.norm(found - expected) <= allowed * norms.mean()
            each = [u + nnls(units.T, -u, maxiter=1000)[0] @ units for u in units]
            expected = sum(p * length for p, length in zip(each, start, strict=True))
            found = rows.T @ solvers.project_each(rows @ rows.T).value
            assert np.linalg.norm(found - expected) <= allowed * norms.mean()


def exact_projection(rows, start):
    """Jᵀv by enumeration of the active sets, in rational numbers."""
    exact = [[Fraction(float(x)) for x in row] for row in rows]
    scaled = [[Fraction(float(u)) * x for x in r] for u, r in zip(start, exact, strict=True)]
    d = [sum(column) for column in zip(*scaled, strict=True)]

    def along(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    subsets = [itertools.combinations(exact, k) for k in range(len(exact) + 1)]
    for active in itertools.chain(*subsets):
        basis, found = [], d  # Gram-Schmidt: the part of d orthogonal to the active rows
        for row in active:
            for b in basis:
                row = [x - along(row, b) / along(b, b) * y for x, y in zip(row, b, strict=True)]
            basis.append(row)
            found = [
                x - along(found, row) / along(row, row) * y for x, y in zip(found, row, strict=True)
            ]
        # found − d = Σ zᵢgᵢ with z >= 0
        if all(along(found, row) >= 0 for row in exact) and all(
            along([x - y for x, y in zip(found, d, strict=True)], dual) >= 0
            for dual in duals(active, along)
        ):
            return np.array([float(x) for x in found])
    raise AssertionError("no active set fits")


def duals(active, along):
    """Of each active row the part orthogonal to the others: its product with Σ zᵢgᵢ has the sign of
    zᵢ.
    """
    for k, row in enumerate(active):
        basis = []
        for other in [*active[:k], *active[k + 1 :], row]:
            for b in basis:
                other = [
                    x - along(other, b) / along(b, b) * y for x, y in zip(other, b, strict=True)
                ]
            basis.append(other)
        yield basis[-1]


SPREADS = [(1e-3, 2e-8), (1e-4, 3e-6), (3e-5, 1e-4), (1e-5, 1e-3)]


@pytest.mark.parametrize(("spread", "allowed"), SPREADS)
def test_a_projection_that_float64_determines_is_exact(spread, allowed):
    """What is allowed is about ten times what the rounding of the Gram matrix alone brings."""
    bend = 3 * spread
    planned = np.array([[1.0, 0, 0], [-3, bend, 0], [0.2, -1, 0.5]])
    rng, cases = np.random.default_rng(12), [planned]
    for _ in range(12):
        rows = rng.standard_normal((3, 6))
        rows[1] = -rng.uniform(0.3, 3) * (rows[0] + spread * rng.standard_normal(6))
        cases.append(rows)
    for rows in cases:
        expected = exact_projection(rows, [1 / 3] * 3)
        found = solvers.project_dual_cone(rows @ rows.T)
        assert found.converged
        assert np.linalg.norm(rows.T @ found.value - expected) <= allowed * np.linalg.norm(expected)
        expected = sum(exact_projection(rows, u) for u in np.eye(3) / 3)
        found = solvers.project_each(rows @ rows.T)
        assert found.converged
        assert np.linalg.norm(rows.T @ found.value - expected) <= allowed * np.linalg.norm(expected)


@pytest.mark.usefixtures("temporary")
def test_a_projection_without_bounds_fails_the_conformance_checks():
    from scipy.optimize import nnls

    @gs.strategy("test-unbounded", paper="none", scale="mean", claims=("projection",))
    def unbounded(gram):
        norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        root = solvers.factor(gram / norms / norms[:, None])
        start = norms / len(norms)
        return (start + nnls(root, -root @ start, maxiter=10_000)[0]) / norms

    with pytest.raises(ConformanceError, match="times longer than the mean gradient"):
        check_strategy("test-unbounded")
    assert any(s.kind == "cancelling in float32" for s in samples(20))


def cancelling_units():
    """Unit gradients that sum to zero."""
    angles = np.deg2rad([90, 210, 330])
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    simplex = np.eye(6) - 1 / 6
    return {
        "two against two": np.array([[1.0, 2], [1, 2], [-1, -2], [-1, -2]]) / math.sqrt(5),
        "120°": np.stack([np.cos(angles), np.sin(angles)], 1),
        "tetrahedron": tetrahedron,
        "simplex": simplex / np.linalg.norm(simplex, axis=1, keepdims=True),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["config", "imtl-g"])
@pytest.mark.parametrize("case", cancelling_units())
def test_no_direction_is_made_of_rounding_where_unit_gradients_cancel(case, name, dtype):
    rng, units, chosen = np.random.default_rng(5), cancelling_units()[case], gs.get_strategy(name)
    n, k = units.shape
    for _ in range(20):
        turned = units @ np.linalg.qr(rng.standard_normal((9, k)))[0].T
        norms = 10 ** rng.uniform(-2, 2) * 10 ** rng.uniform(-1, 1, n)
        rows = (turned * norms[:, None]).astype(dtype).astype(np.float64)[rng.permutation(n)]
        assert np.abs(rows.T @ chosen.weights(rows @ rows.T)).max() <= 1e-12 * norms.max()
    # but what is bent by more than rounding has its direction
    rows = turned + 1e-3 * rng.standard_normal(turned.shape)
    assert np.linalg.norm(rows.T @ chosen.weights(rows @ rows.T)) > 0


def test_config_with_a_preference_that_cancels():
    rows = np.array([[1.0, 0.2], [0.3, 1.0], [0, 0]])
    rows[2] = -(2 * rows[0] / np.linalg.norm(rows[0]) + rows[1] / np.linalg.norm(rows[1])) / 3
    wanted = (2.0, 1.0, 3 * np.linalg.norm(rows[2]))
    weights = gs.get_strategy("config", preference=wanted).weights(rows @ rows.T)
    assert np.abs(rows.T @ weights).max() <= 1e-12


def test_pcd_follows_the_primary_where_secondaries_contradict_up_to_rounding():
    rng, pcd = np.random.default_rng(6), gs.get_strategy("pcd")
    for n in (3, 4, 6):
        for _ in range(60):
            rows = rng.standard_normal((n, 9)).astype(np.float32)
            rows[2] = np.float32(-rng.uniform(0.2, 3)) * rows[1]
            rows = rows.astype(np.float64)
            found = rows.T @ pcd.weights(rows @ rows.T, state=gs.State())
            assert found == pytest.approx(rows[0], abs=1e-12)


def test_pbi_takes_no_direction_from_the_rounding_of_losses():
    pbi = gs.get_strategy("pbi", preference=[1.0, 3.0])
    unit = np.array([1.0, 3.0]) / math.sqrt(10)
    for loss in (0.1, 0.7, 1.3):
        losses = [float(np.float32(loss)), float(np.float32(3 * loss))]
        assert pbi.weights(np.eye(2), losses=losses) == pytest.approx(unit)
    assert pbi.weights(np.eye(2), losses=[1.0, 3.001]) != pytest.approx(unit)

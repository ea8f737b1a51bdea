"""Strategies against definitions written out apart, and closed forms for two objectives."""

import itertools

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.definitions import close, cosine, d, pairs
from tests.support.shipped import direction

pytestmark = pytest.mark.quick

# ---- closed forms for two objectives


def test_closed_forms_for_two_objectives():
    for rows in pairs():
        norms = np.linalg.norm(rows, axis=1)
        c = cosine(rows)
        units = rows / norms[:, None]
        assert close(d("nash-mtl", rows), units.sum(0) / np.sqrt(1 + c))
        assert np.linalg.norm(d("nash-mtl", rows)) == pytest.approx(np.sqrt(2), rel=1e-8)
        assert close(d("fairgrad", rows, alpha=1.0), d("nash-mtl", rows))
        assert close(d("imtl-g", rows), (norms[1] * rows[0] + norms[0] * rows[1]) / norms.sum())
        assert close(d("upgrad", rows), d("pcgrad", rows) / 2)
        assert close(d("gradvac", rows), d("pcgrad", rows))
        target = units.sum(0) / np.linalg.norm(units.sum(0))
        assert close(d("config", rows), (rows @ target).sum() * target)
        mean = rows.mean(0)
        conflicting = [i for i in (0, 1) if rows[i] @ mean < 0]
        expected = (
            mean
            if not conflicting
            else mean
            - (rows[conflicting[0]] @ mean) / norms[conflicting[0]] ** 2 * rows[conflicting[0]]
        )
        assert close(d("dualproj", rows), expected, 1e-7)
        other = rows[1] - min(0.0, rows[0] @ rows[1]) / norms[0] ** 2 * rows[0]
        assert close(d("a-gem", rows, objective="0"), other)
        assert close(d("cagrad", rows, c=0.0), mean)
        values, left = np.linalg.eigh(rows @ rows.T / norms.max() ** 2)
        if norms.max() / norms.min() < 1e3 and abs(c) < 0.999:
            aligned = left @ np.diag(np.sqrt(values.min() / values)) @ left.T @ np.full(2, 0.5)
            assert close(d("aligned-mtl", rows), rows.T @ aligned, 1e-6)


def test_aligned_mtl_has_equal_singular_values_whatever_the_norms():
    rng = np.random.default_rng(3)
    for spread in (0, 2, 4, 6):
        for _ in range(10):
            rows = rng.normal(size=(4, 9)) * 10.0 ** rng.uniform(0, spread, (4, 1))
            columns = np.stack(
                [
                    gs.get_strategy("aligned-mtl", preference=row.tolist()).weights(rows @ rows.T)
                    for row in np.eye(4)
                ],
                1,
            )
            values = np.linalg.svd(rows.T @ columns)[1]
            assert values == pytest.approx(
                np.full(4, values.mean()), rel=1e-6
            )  # the balanced matrix is perfectly conditioned
            assert values.mean() == pytest.approx(np.linalg.svd(rows)[1].min(), rel=1e-6)


def test_imtl_g_has_equal_projections():
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = rng.normal(size=(5, 8)) * 10.0 ** rng.uniform(-3, 3, (5, 1))
        weights = gs.get_strategy("imtl-g").weights(rows @ rows.T)
        along = rows @ (rows.T @ weights) / np.linalg.norm(rows, axis=1)
        assert weights.sum() == pytest.approx(1)
        assert along == pytest.approx(np.full(5, along[0]), rel=1e-6)


def test_upgrad_and_dualproj_preferences():
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows, preference = rng.normal(size=(3, 3)), rng.uniform(0.1, 1, 3)
        gram = rows @ rows.T
        expected = sum(
            gs.solvers.project_dual_cone(gram, p * e).value
            for p, e in zip(preference, np.eye(3), strict=True)
        )
        assert close(d("upgrad", rows, preference=preference.tolist()), rows.T @ expected)
        assert close(
            d("dualproj", rows, preference=preference.tolist()),
            rows.T @ gs.solvers.project_dual_cone(gram, preference).value,
        )
    with pytest.raises(gs.InputError, match="preference is positive"):
        d("upgrad", np.eye(2), preference=[1.0, 0.0])


def test_config_is_its_pseudo_inverse():
    rng = np.random.default_rng(4)
    for n, dimension in ((3, 7), (5, 5), (4, 2)):
        for _ in range(20):
            rows = rng.normal(size=(n, dimension)) * 10.0 ** rng.uniform(-3, 3, (n, 1))
            units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            x = np.linalg.pinv(units) @ np.ones(n)
            x /= np.linalg.norm(x)
            assert close(d("config", rows), (rows @ x).sum() * x, 1e-6)


def test_krum_is_its_definition():
    rng = np.random.default_rng(5)
    for byzantine, selected in itertools.product((0, 1, 2), (1, 2)):
        rows = rng.normal(size=(6, 3))
        distances = ((rows[:, None] - rows[None]) ** 2).sum(-1)
        scores = [np.sort(np.delete(distances[i], i))[: 6 - byzantine - 2].sum() for i in range(6)]
        expected = rows[np.argsort(scores)[:selected]].mean(0)
        assert close(d("krum", rows, byzantine=byzantine, selected=selected), expected)
    with pytest.raises(gs.InputError, match=r"byzantine \+ 3 = 4 objectives or more; got 3"):
        d("krum", np.eye(3))


def test_pcd_meets_its_constraints_and_keeps_the_primary_length():
    rng = np.random.default_rng(6)
    met = 0
    for _ in range(60):
        rows = rng.normal(size=(4, 5)) * 10.0 ** rng.uniform(-3, 3, (4, 1))
        found = d("pcd", rows, tau=0.05)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(rows[0]), rel=1e-6)
        solution = gs.solvers.nearest_above(
            units @ units.T, [1.0, 0, 0, 0], [-np.inf, 0.05, 0.05, 0.05]
        )
        if not solution.converged:
            assert close(found, rows[0])
            continue
        met += 1
        before = units.T @ solution.value
        assert (units[1:] @ before).min() >= 0.05 - 1e-9
        assert close(found, before / np.linalg.norm(before) * np.linalg.norm(rows[0]))
    assert met > 40
    assert close(d("pcd", [[1.0, 0], [0, 1], [0, -1]]), np.array([1.0, 0]))  # contradictory
    assert d("pcd", np.eye(2), primary="elsewhere").tolist() == [
        1.0,
        1.0,
    ]  # on a group that the primary objective does not reach


def test_coordinate_wise_definitions():
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(5, 200_000)).astype(np.float32)
    rows[:, :10] = 0
    ordered = np.sort(rows, axis=0)
    for trim in (0, 1, 2):
        assert np.allclose(
            direction(gs.get_strategy("trimmed-mean", trim=trim), torch.as_tensor(rows)).numpy(),
            ordered[trim : 5 - trim].mean(0),
            atol=1e-6,
        )
    with pytest.raises(gs.InputError, match="more than 2 objectives; got 2"):
        d("trimmed-mean", np.eye(2))
    leak = [0.0, 0.1, 0.2, 0.3, 0.4]
    chance = 0.5 * (1 + rows.sum(0) / np.maximum(np.abs(rows).sum(0), 1e-30))
    for given, shares in ((0.0, np.zeros(5)), (leak, np.array(leak))):
        total = np.zeros(rows.shape[1])
        for k in range(40):
            found = direction(
                gs.get_strategy("graddrop", leak=given), torch.as_tensor(rows), step=k
            ).numpy()
            positive = np.where(rows > 0, rows, shares[:, None] * rows).sum(0)
            negative = np.where(rows < 0, rows, shares[:, None] * rows).sum(0)
            assert (
                np.isclose(found, positive, atol=1e-5) | np.isclose(found, negative, atol=1e-5)
            ).all()
            total += found
        expected = chance * positive + (1 - chance) * negative
        error = (total / 40 - expected) / (np.abs(positive - negative) + 1e-6)
        assert abs(error.mean()) < 1e-3
        assert error.std() < 0.09  # a coin of 40 throws: at most 0.079

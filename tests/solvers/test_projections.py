"""All projections at once, floors, the simplex: optimality conditions and cvxpy."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsurgery import solvers
from gradsurgery.errors import InputError
from gradsurgery.solvers import (
    alpha_fair,
    nearest_above,
    project_dual_cone,
    project_each,
    project_simplex,
    reference,
    without_conflict,
)
from gradsurgery.testing import KINDS, drawn_samples, make_sample


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 32])
def test_project_each_is_the_sum_of_the_projections(n, kind):
    rng = np.random.default_rng(n)
    for spread in (0.0, 3.0, 6.0):
        for _ in range(6 if n < 32 else 2):  # as many rows as objectives are projected in each
            sample = make_sample(kind, n, rng, spread=spread, scale=10.0 ** rng.uniform(-20, 20))
            preference = rng.uniform(0.1, 2, sample.count)
            # of one row alone; that of u times the row is u times as long
            alone = [project_dual_cone(sample.gram, row).value for row in np.eye(sample.count)]
            for weights in (None, preference):
                solution = project_each(sample.gram, weights)
                assert solution.converged, solution
                each = np.full(sample.count, 1 / sample.count) if weights is None else weights
                expected = each @ np.stack(alone)
                size = expected @ sample.norms
                difference = np.linalg.norm(
                    sample.units.T @ ((solution.value - expected) * sample.norms)
                )
                assert difference <= (1e-7 if sample.conditioning > 1e-12 else 1e-3) * size
                image = sample.units @ (sample.units.T @ (solution.value * sample.norms))
                assert image.min() >= -1e-10 * (solution.value @ sample.norms)


def test_project_each_two_objectives_is_half_of_pcgrad():
    g = np.array([[1.0, -2.0], [-2.0, 5.0]])
    assert project_each(g).value == pytest.approx([(1 + 2 / 1) / 2, (1 + 2 / 5) / 2])
    assert project_each(np.eye(3), [1.0, 0.0, 2.0]).value.tolist() == [1.0, 0.0, 2.0]


@given(drawn_samples(max_n=8, max_ratio=1e3), st.integers(0, 2**31))
def test_nearest_above_meets_its_floors_or_says_that_it_cannot(sample, seed):
    rng = np.random.default_rng(seed)
    start = rng.normal(size=sample.count)
    size = np.abs(start) @ sample.norms
    floors = np.where(
        rng.random(sample.count) < 0.3,
        -np.inf,
        rng.uniform(-0.1, 0.3, sample.count) * sample.norms * size,
    )
    solution = nearest_above(sample.gram, start, floors)
    if not solution.converged:
        assert solution.value.tolist() == start.tolist()
        return
    added = solution.value - start
    assert added.min() >= 0
    terms = solution.value * sample.norms
    image = sample.units @ (sample.units.T @ terms)
    live = sample.norms > 0
    slack = image[live] - floors[live] / sample.norms[live]
    tolerance = 1e-8 * (np.abs(terms).sum() + size)
    assert slack.min(initial=0.0) >= -tolerance
    assert ((added * sample.norms)[live][np.isfinite(slack)] * slack[np.isfinite(slack)]).max(
        initial=0.0
    ) <= tolerance * (np.abs(terms).sum() + size)


def test_nearest_above_agrees_with_cvxpy_also_on_what_cannot_be_met():
    pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    met = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sample = make_sample("square", int(rng.integers(2, 6)), seed, spread=1.0)
        start, floors = np.eye(sample.count)[0], 0.02 * sample.norms**2
        floors[0] = -np.inf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = reference.nearest_above(sample.gram, start, floors)
        ours = nearest_above(sample.gram, start, floors)
        assert ours.converged == theirs.converged
        met += ours.converged
        assert np.linalg.norm(sample.jacobian.T @ (ours.value - theirs.value)) <= 1e-5 * (
            np.abs(ours.value) @ sample.norms
        )
    assert met > 20
    assert not nearest_above(
        [[1.0, 0, 0], [0, 1, -1], [0, -1, 1]], [1.0, 0, 0], [-np.inf, 0.1, 0.1]
    ).converged
    assert not nearest_above([[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0], [-np.inf, 0.1]).converged


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_project_simplex_is_the_nearest_point(values):
    point = np.array(values)
    found = project_simplex(point)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-9)
    active = found > 0
    level = (point - found)[active]
    assert np.ptp(level) <= 1e-9 * (1 + np.abs(point).max())
    assert (point[~active] <= level.mean() + 1e-9 * (1 + np.abs(point).max())).all()


def test_without_conflict():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows, weights = rng.normal(size=(4, 6)), rng.normal(size=4)
        changed = without_conflict(weights, rows @ rows.T, 2)
        direction, before = rows.T @ changed, rows.T @ weights
        if before @ rows[2] >= 0:
            assert changed is weights
        else:
            assert direction @ rows[2] == pytest.approx(0, abs=1e-12)
            assert direction == pytest.approx(
                before - (before @ rows[2]) / (rows[2] @ rows[2]) * rows[2]
            )
        blocks = np.stack([part @ part.T for part in np.split(rows, [2, 3], axis=1)])
        table = rng.normal(size=(3, 4))
        moved = without_conflict(table, blocks, 2)
        assert np.einsum("kn,kn->", moved, blocks[:, 2]) >= -1e-12
        assert not (moved - table)[:, [0, 1, 3]].any()
    assert without_conflict(np.array([1.0, 1.0]), np.zeros((2, 2)), 0).tolist() == [1.0, 1.0]


def test_the_earlier_name_of_a_solver_is_kept():
    assert solvers.without_harm is without_conflict


def test_bad_arguments_are_errors():
    with pytest.raises(InputError, match="alpha"):
        alpha_fair(np.eye(2), 0.0)
    with pytest.raises(InputError, match="finite numbers >= 0"):
        project_each(np.eye(2), [1.0, -1.0])
    with pytest.raises(InputError, match="2 numbers each"):
        nearest_above(np.eye(2), [1.0], [0.0, 0.0])

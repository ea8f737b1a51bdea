"""The least correction of a step: its optimality conditions on the step itself, and cvxpy."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.solvers import least_correction, reference
from gradsurgery.testing import KINDS, make_sample


def drawn(seed, nearest=-3.0):
    """J [n, d], P [d] and u [d]; some rows nearly cancel, some are nearly equal."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 9)), int(rng.integers(3, 41))
    rows, near = rng.normal(size=(n, d)), rng.normal(size=d) * 10.0 ** rng.uniform(nearest, 0)
    rows[1] = (rows[1], near - rows[0], near + rows[0])[rng.integers(3)]
    if rng.random() < 0.25:
        rows -= 0.99 * rows.mean(0)
    rows *= 10.0 ** rng.uniform(-2, 2, size=(n, 1))
    metric = 10.0 ** rng.uniform(-6, 0, size=d)
    return rows, metric, rng.normal(size=d) * np.sqrt(metric)


def corrected(rows, metric, step):
    """u', what the solver says of it, and ‖u‖ in P⁻¹."""
    root = np.sqrt(metric)
    length = np.linalg.norm(np.divide(step, root, out=np.zeros_like(root), where=root > 0))
    wide = rows * root
    found = least_correction(wide @ wide.T, rows @ step, float(length))
    return step - metric * (rows.T @ found.value), found, float(length)


def in_metric(step, metric):
    root = np.sqrt(metric)
    return np.divide(step, root, out=np.zeros_like(root), where=root > 0)


def by_cvxpy(rows, metric, step):
    """u' as it is defined, in the coordinates of P⁻¹ and in units of ‖u‖."""
    cp = pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    root = np.sqrt(metric)
    start = step / root
    length = np.linalg.norm(start)
    units = rows * root / np.linalg.norm(rows * root, axis=1, keepdims=True)
    point = cp.Variable(len(step))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(point - start / length)), [units @ point <= 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return point.value * length * root


@pytest.mark.parametrize(
    "seeds",
    [range(12), pytest.param(range(12, 200), marks=pytest.mark.exhaustive)],
    ids=["some", "all"],
)
def test_the_corrected_step_agrees_with_cvxpy(seeds):
    for seed in seeds:
        rows, metric, step = drawn(seed)
        ours, found, length = corrected(rows, metric, step)
        theirs = by_cvxpy(rows, metric, step)
        assert found.converged
        assert np.linalg.norm((ours - theirs) / np.sqrt(metric)) <= 1e-8 * length, seed


@pytest.mark.parametrize("nearest", [-3.0, -6.0])
def test_the_corrected_step_is_as_exact_as_the_products_are(nearest):
    """Against a projection from the rows, on the support found: A holds less of what cancels."""
    for seed in range(200):
        rows, metric, step = drawn(seed, nearest)
        ours, found, length = corrected(rows, metric, step)
        root, on = np.sqrt(metric), found.value > 0
        units = rows * root / np.linalg.norm(rows * root, axis=1, keepdims=True)
        inside = np.linalg.lstsq(units[on].T, step / root, rcond=None)[0]
        exact = step / root - units[on].T @ inside
        if len(rows) > len(step) or not on.any():
            continue
        curvature = np.linalg.svd(units, compute_uv=False)[-1] ** 2
        assert inside.min() >= -1e-15 / curvature**1.5 * length
        tolerance = max(1e-9, 2e-15 / curvature) if curvature > 1e-14 else 1.0
        assert np.linalg.norm(ours / root - exact) <= tolerance * length, seed


def test_the_multipliers_agree_with_the_reference():
    pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    for seed in range(12):
        rows, metric, step = drawn(seed)
        products, rises = (rows * metric) @ rows.T, rows @ step
        ours = least_correction(products, rises)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = reference.least_correction(products, rises)
        assert theirs.gap <= 1e-6
        difference = (rows * np.sqrt(metric)).T @ (ours.value - theirs.value)
        assert np.linalg.norm(difference) <= 1e-6 * np.linalg.norm(step / np.sqrt(metric))
        assert ours.objective == pytest.approx(theirs.objective, rel=1e-5)


def test_of_all_supports_it_is_the_one_that_is_optimal():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 6))
        rows, step = rng.normal(size=(n, 7)), rng.normal(size=7)
        products, rises = rows @ rows.T, rows @ step
        optimal = []
        for size in range(n + 1):
            for on in map(list, itertools.combinations(range(n), size)):
                trial = np.zeros(n)
                trial[on] = np.linalg.solve(products[np.ix_(on, on)], rises[on])
                if trial.min() >= 0 and (products @ trial - rises).min() >= -1e-12:
                    optimal.append(trial)
        assert len(optimal) == 1
        assert least_correction(products, rises).value == pytest.approx(optimal[0], abs=1e-10)


@given(
    st.sampled_from(KINDS),
    st.integers(1, 12),
    st.floats(-20, 20),
    st.sampled_from(["plain", "twice", "zero rows", "still"]),
    st.integers(0, 2**31),
)
def test_no_objective_rises_and_the_correction_is_optimal(kind, n, power, also, seed):
    rng = np.random.default_rng(seed)
    sample = make_sample(kind, n, rng, spread=2.0, scale=10.0**power)
    units, d = sample.units, sample.units.shape[1]
    rows = units * sample.norms[:, None]
    metric = 10.0 ** rng.uniform(-4, 0, d)
    step = rng.normal(size=d) * metric * 10.0 ** rng.uniform(-20, 20)
    if also == "twice":
        rows = np.concatenate([rows, 3 * rows])
    if also == "zero rows":
        rows[::2] = 0
    if also == "still":  # as with a learning rate of 0
        metric[: d // 2] = 0
        step[: d // 2] = 0
    after, found, length = corrected(rows, metric, step)
    wide = rows * np.sqrt(metric)
    sizes = np.linalg.norm(wide, axis=1)
    live = sizes > 0
    assert found.value.min() >= 0
    assert not found.value[~live].any()
    # rows that cancel but for rounding leave some 1e-7, and never make a step longer
    tolerance = (2e-10 if found.converged else 1e-6) * length
    rise = (rows @ after)[live] / sizes[live]
    assert rise.max(initial=0.0) <= tolerance
    assert np.minimum(found.value[live] * sizes[live], -rise).max(initial=0.0) <= tolerance
    assert np.linalg.norm(in_metric(after, metric)) <= (1 + 1e-6) * length
    assert np.linalg.norm(in_metric(after - step, metric)) <= (1 + 1e-6) * length
    assert found.converged or sample.conditioning < 1e-10, found


def test_a_step_that_raises_nothing_needs_no_correction():
    found = least_correction([[1.0, -0.9], [-0.9, 1.0]], [-1e-300, 0.0])
    assert found.value.tolist() == [0.0, 0.0]
    assert (found.gap, found.iterations, found.converged, found.objective) == (0.0, 0, True, 0.0)
    assert least_correction([[0.0, 0.0], [0.0, 1.0]], [1e-20, -1.0]).value.tolist() == [0.0, 0.0]
    assert least_correction([[0.0]], [1.0]).value.tolist() == [0.0]


@pytest.mark.parametrize("power", [-20, 0, 20])
def test_where_every_direction_raises_an_objective_no_step_is_left(power):
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.eye(4), -np.ones((1, 4))]) * 10.0**power
    metric = 10.0 ** rng.uniform(-3, 0, 4)
    for _ in range(20):
        step = rng.normal(size=4)
        after, found, length = corrected(rows, metric, step)
        assert found.converged
        assert np.linalg.norm(in_metric(after, metric)) <= 1e-12 * length


def test_rows_that_are_opposite_but_for_rounding_do_not_make_the_correction_long():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows, step = rng.normal(size=(3, 9)), rng.normal(size=9)
        rows[1] = -rows[0] * rng.uniform(0.5, 2) + rng.normal(size=9) * 10.0 ** rng.uniform(-17, -7)
        after, found, length = corrected(rows, np.ones(9), step)
        sizes = np.linalg.norm(rows, axis=1)
        assert np.linalg.norm(after - step) <= (1 + 1e-6) * length
        assert ((rows @ after) / sizes).max() <= 1e-6 * length
        assert found.gap <= 1e-6


def test_rises_that_are_rounding_beside_the_step_are_left():
    found = least_correction([[1.0, -1.0], [-1.0, 1.0]], [1e-17, 1e-17], 1.0)
    assert found.converged
    assert np.abs(found.value).max() <= 1e-6
    assert not least_correction([[1.0, -1.0], [-1.0, 1.0]], [1.0, 1.0]).converged


def test_many_objectives():
    rng = np.random.default_rng(0)
    for d in (40, 200):
        rows, step = rng.normal(size=(64, d)), rng.normal(size=d)
        after, found, length = corrected(rows, np.ones(d), step)
        assert found.converged
        assert (rows @ after).max() <= 1e-12 * length * np.linalg.norm(rows, axis=1).max()


def test_wrong_numbers_are_errors():
    with pytest.raises(InputError, match="rises: expected 2 finite numbers"):
        least_correction(np.eye(2), [1.0])
    with pytest.raises(InputError, match="rises: expected 2 finite numbers"):
        least_correction(np.eye(2), [1.0, np.nan])
    with pytest.raises(NonFiniteError):
        least_correction([[np.inf]], [1.0])

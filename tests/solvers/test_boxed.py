"""The min-norm point with bounds on each weight: optimality, known cases, and cvxpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsurgery.errors import InputError
from gradsurgery.solvers import boxed_min_norm, min_norm, reference
from gradsurgery.testing import KINDS, drawn_samples, make_sample

pytestmark = pytest.mark.quick


def drawn_bounds(rng, n):
    centre, radius = rng.dirichlet(np.ones(n)), rng.uniform(0, 0.6)
    return np.maximum(centre - radius, 0), np.minimum(centre + radius, 1)


@given(drawn_samples(max_n=8), st.integers(0, 2**31))
def test_no_exchange_of_weight_is_better_and_the_bounds_hold(sample, seed):
    low, high = drawn_bounds(np.random.default_rng(seed), sample.count)
    solution = boxed_min_norm(sample.gram, low, high)
    assert solution.gap <= 1e-7
    weights = solution.value
    assert (weights >= low).all()
    assert (weights <= high).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    norms = sample.norms / (sample.norms.max() or 1.0)
    slope = norms * (sample.units @ (sample.units.T @ (norms * weights)))
    size = float(weights @ norms)
    for i in np.flatnonzero(weights < high - 1e-9):  # more of i, and less of j
        for j in np.flatnonzero(weights > low + 1e-9):
            assert slope[j] - slope[i] <= 1e-7 * (norms[i] + norms[j]) * size


@given(drawn_samples(max_n=6))
def test_without_bounds_it_is_the_min_norm_point(sample):
    n = sample.count
    found, plain = boxed_min_norm(sample.gram, np.zeros(n), np.ones(n)), min_norm(sample.gram)
    assert found.value.tolist() == plain.value.tolist()


def test_bounds_that_leave_nothing_are_the_weights():
    bounds = [0.2, 0.5, 0.3]
    assert boxed_min_norm(np.eye(3), bounds, bounds).value.tolist() == bounds


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_two_gradients_have_a_closed_form_within_bounds(scale):
    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = rng.normal(size=(2, 4)) * 10.0 ** rng.uniform(-2, 2, (2, 1))
        share = np.clip((b @ b - a @ b) / ((a - b) @ (a - b)), 0.3, 0.6)
        rows = np.stack([a, b]) * scale
        found = boxed_min_norm(rows @ rows.T, [0.3, 0.4], [0.6, 0.7])
        assert found.value == pytest.approx([share, 1 - share], rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_agreement_with_cvxpy(kind):
    pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    rng = np.random.default_rng(0)
    for n in (2, 4):
        sample = make_sample(kind, n, rng, spread=1.0)
        low, high = drawn_bounds(rng, sample.count)
        ours = boxed_min_norm(sample.gram, low, high)
        theirs = reference.boxed_min_norm(sample.gram, low, high)
        # cvxpy stops at 1e-12 beside the longest gradient, which a zero gradient lets d fall below
        size, longest = ours.value @ sample.norms, sample.norms.max()
        assert theirs.converged
        assert abs(ours.objective - theirs.objective) <= 1e-7 * size**2 + 1e-11 * longest**2
        difference = sample.jacobian.T @ (ours.value - theirs.value)
        assert np.linalg.norm(difference) <= 1e-4 * size + 1e-6 * longest


@pytest.mark.parametrize(
    ("low", "high"),
    [([0.5], [1.0]), ([0.6, 0.6], [1.0, 1.0]), ([0.0, 0.0], [0.4, 0.4]), ([0.5, 0], [0.4, 1])],
    ids=str,
)
def test_bounds_that_cannot_hold_are_errors(low, high):
    with pytest.raises(InputError, match="lower and upper"):
        boxed_min_norm(np.eye(2), low, high)

"""CAGrad's problem around a weighted mean: optimality, cvxpy, and no weights as equal ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsurgery.errors import InputError
from gradsurgery.solvers import best_worst, min_norm, reference
from gradsurgery.testing import KINDS, drawn_samples, make_sample

pytestmark = pytest.mark.quick

RADII = (0.1, 0.5, 1.0, 2.0)


def drawn_weights(rng, n):
    """Weights with a sum of 1, some of them a thousand times others."""
    found = 10.0 ** rng.uniform(-3, 0, n)
    return found / found.sum()


@settings(max_examples=100)
@given(drawn_samples(max_n=12), st.sampled_from(RADII), st.integers(0, 2**31))
def test_no_direction_of_the_ball_has_a_better_least_improvement(sample, radius, seed):
    """By duality: d = g₀ + r g_w/‖g_w‖, and no gradient with a weight w improves more than the
    least one; or the gradients are stationary, and none improves by less than zero.
    """
    weights = drawn_weights(np.random.default_rng(seed), sample.count)
    solution = best_worst(sample.gram, radius, weights=weights)
    assert solution.converged, solution
    rows = sample.units * (sample.norms / (sample.norms.max() or 1.0))[:, None]
    lengths = np.linalg.norm(rows, axis=1)
    anchor, direction = rows.T @ weights, rows.T @ solution.value
    reach, moved = radius * np.linalg.norm(anchor), direction - anchor
    size = np.abs(solution.value) @ lengths + weights @ lengths
    assert np.linalg.norm(moved) <= reach * (1 + 1e-9) + 1e-7 * size
    added = np.maximum(solution.value - weights, 0.0)
    assert (solution.value - weights) * lengths == pytest.approx(added * lengths, abs=1e-9 * size)
    gains = rows @ direction
    if sample.distance() < 1e-6 or np.linalg.norm(anchor) < 1e-6 * size:
        if radius >= 1:
            assert (gains >= -1e-9 * lengths * size).all()
        return
    assert np.linalg.norm(moved) == pytest.approx(reach, rel=1e-6)
    share = added / added.sum()
    level = share @ gains
    assert (gains - level >= -1e-9 * np.maximum(lengths, share @ lengths) * size).all()
    assert share @ np.abs(gains - level) <= 1e-9 * (share @ lengths) * size


@settings(max_examples=50)
@given(drawn_samples(max_n=8), st.sampled_from(RADII))
def test_equal_weights_are_none(sample, radius):
    n = sample.count
    plain = best_worst(sample.gram, radius)
    even = best_worst(sample.gram, radius, weights=np.full(n, 1 / n))
    size = np.abs(plain.value) @ sample.norms
    error = sample.units.T @ ((even.value - plain.value) * sample.norms)
    assert np.linalg.norm(error) <= (1e-12 if sample.distance() > 1e-3 else 1e-7) * size


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "zero gradient"])
def test_weighted_means_agree_with_cvxpy(kind):
    pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    compared = 0
    for seed, radius in enumerate(RADII):
        sample = make_sample(kind, 2 + seed, seed, spread=(seed % 2) * 1.0)
        weights = drawn_weights(np.random.default_rng(seed), sample.count)
        theirs = reference.best_worst(sample.gram, radius, weights)
        if not theirs.converged or theirs.gap > 1e-8 or sample.distance() < 1e-6:
            continue
        compared += 1
        ours = best_worst(sample.gram, radius, weights=weights)
        size = ours.value @ sample.norms
        assert abs(ours.objective - theirs.objective) <= 1e-7 * size * sample.norms.min()
        difference = sample.jacobian.T @ (ours.value - theirs.value)
        assert np.linalg.norm(difference) <= 1e-5 * size
    if kind in ("normal", "pulling apart", "square"):
        assert compared >= 1


def test_two_supports_that_point_to_each_other_are_no_end():
    """The search once went to and fro between two levels, for all of its rounds."""
    weights = 10.0 ** np.random.default_rng(8).uniform(-3, 0, 12)
    cycling = make_sample("nearly cancelling", 12, 902196256, spread=0.0)
    plain = make_sample("not weakly stationary", 11, 884436759, spread=6.0)
    for sample, radius, used in ((cycling, 1.0, weights / weights.sum()), (plain, 1.0, None)):
        found = best_worst(sample.gram, radius, weights=used)
        assert found.converged
        assert found.iterations <= 60


def test_around_one_gradient_alone_the_other_still_counts():
    """g₀ is nearly g₁; at c = 1 the second, in conflict with it, is improved all the same."""
    gram = np.array([[1.0, -0.8], [-0.8, 1.0]])
    found = best_worst(gram, 1.0, weights=[1 - 1e-9, 1e-9]).value
    assert (gram @ found > 0).all()
    assert (gram @ [1.0, 0.0]).min() < 0
    assert min_norm(gram).value @ gram @ found == pytest.approx((gram @ found).min())


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan]], ids=str)
def test_weights_that_cannot_be_used_are_errors(weights):
    with pytest.raises(InputError, match="weights: expected 2 finite numbers above 0"):
        best_worst(np.eye(2), 0.5, weights=weights)

"""Alpha-fair weights: optimality conditions, closed forms and cvxpy."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsurgery.errors import InputError
from gradsurgery.solvers import (
    alpha_fair,
    min_norm,
    reference,
)
from gradsurgery.testing import KINDS, drawn_samples, make_sample

pytestmark = pytest.mark.quick

ALPHAS = (0.5, 1.0, 2.0)


@given(drawn_samples(max_n=16), st.sampled_from(ALPHAS))
def test_alpha_fair_meets_its_condition(sample, alpha):
    """(Gw)ᵢ wᵢ^(1/α) = 1, judged on the rows and relative to the terms it is made of; or
    stationary, and zero.
    """
    solution = alpha_fair(sample.gram, alpha)
    assert solution.converged
    if not solution.value.any():
        assert sample.distance() <= 1e-12
        return
    assert (solution.value > 0).all()
    terms = solution.value * sample.norms
    image = sample.units @ (sample.units.T @ terms)
    expected = solution.value ** (-1 / alpha) / sample.norms
    assert np.abs(image - expected).max() <= 1e-10 * terms.sum()
    if alpha == 1:  # ‖d‖² = n
        assert solution.objective == pytest.approx(
            sample.count, rel=1e-6 + 1e-13 / sample.conditioning
        )


@given(drawn_samples(max_n=8), st.sampled_from((0.005, *ALPHAS)), st.integers(0, 2**31))
def test_with_preferences_it_meets_its_condition(sample, alpha, seed):
    """(Gw)ᵢ = (pᵢ/wᵢ)^(1/α), judged as above; or stationary, and zero.

    Below α = 0.01 there may be no weights to be had, which an error says.
    """
    wanted = np.random.default_rng(seed).uniform(0.05, 5, sample.count)
    try:
        solution = alpha_fair(sample.gram, alpha, preference=wanted)
    except InputError:
        assert alpha < 0.01
        return
    if not solution.value.any():
        assert sample.distance() <= 1e-12
        return
    assert (solution.value > 0).all()
    terms = solution.value * sample.norms
    image = sample.units @ (sample.units.T @ terms)
    ratio = np.minimum(np.log(wanted / solution.value) / alpha, 700)
    assert np.abs(image - np.exp(ratio) / sample.norms).max() <= 1e-6 * terms.sum()
    assert solution.converged or alpha < 0.01


def test_equal_preferences_are_none_but_for_one_factor():
    rng = np.random.default_rng(1)
    for alpha in ALPHAS:
        rows = rng.normal(size=(3, 5))
        gram = rows @ rows.T
        plain, even = alpha_fair(gram, alpha), alpha_fair(gram, alpha, preference=[3.0] * 3)
        assert even.value == pytest.approx(plain.value * 3 ** (1 / (1 + alpha)), rel=1e-9)


@pytest.mark.parametrize("wanted", [[1.0], [1.0, 0.0], [1.0, np.inf], [1.0, np.nan]], ids=str)
def test_preferences_that_cannot_be_used_are_errors(wanted):
    with pytest.raises(InputError, match="preference"):
        alpha_fair(np.eye(2), preference=wanted)


def test_alpha_fair_closed_forms():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.normal(size=(2, 3)) * 10.0 ** rng.uniform(-9, 9, (2, 1))
        g = np.array([[a @ a, a @ b], [a @ b, b @ b]])
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        expected = 1 / np.linalg.norm([a, b], axis=1) / np.sqrt(1 + cosine)
        assert alpha_fair(g).value == pytest.approx(expected, rel=1e-8)
    for alpha in (0.1, 0.5, 1.0, 2.0, 10.0):  # orthogonal: nᵢ²wᵢ = wᵢ^(−1/α)
        norms = 10.0 ** rng.uniform(-3, 3, 6)
        assert alpha_fair(np.diag(norms**2), alpha).value == pytest.approx(
            norms ** (-2 / (1 + 1 / alpha)), rel=1e-9
        )
    assert alpha_fair(np.eye(3), 1e6).value == pytest.approx(np.ones(3), rel=1e-4)


# no weights exist at a stationary point, be it only up to the rounding of float32
LEFT_OUT = ("zero gradient", "strongly stationary", "weakly stationary", "opposite")
LEFT_OUT += ("cancelling in float32",)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in LEFT_OUT])
def test_alpha_fair_agrees_with_cvxpy(kind, alpha):
    pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    compared = 0
    for seed in range(6):
        sample = make_sample(kind, 2 + seed, seed, spread=(seed % 3) * 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # cvxpy warns where it is inaccurate; those are left out
            wanted = None if seed % 2 else 1.0 + np.arange(sample.count)
            theirs = reference.alpha_fair(sample.gram, alpha, wanted)
        if (
            theirs.gap > 1e-5 or sample.distance() < 1e-8
        ):  # its power cones rarely reach the tolerance that it is asked for
            continue
        compared += 1
        ours = alpha_fair(sample.gram, alpha, preference=wanted)
        difference = sample.jacobian.T @ (ours.value - theirs.value)
        assert np.linalg.norm(difference) <= 1e-5 * (ours.value @ sample.norms)
    assert compared >= {"nearly cancelling": 0, "low rank": 1}.get(
        kind, 2
    )  # few of those are not stationary


def test_stationary_points_have_no_alpha_fair_weights():
    for gram in (np.zeros((2, 2)), [[1.0, -1.0], [-1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]):
        assert alpha_fair(gram).value.tolist() == [0.0, 0.0]
    assert alpha_fair([[4.0]]).value.tolist() == [0.5]
    assert min_norm([[4.0]]).value.tolist() == [1.0]

"""Preferences of nash-mtl and cagrad: the problems they state, and what `weights=` does instead."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradsurgery as gs
from gradsurgery.testing import drawn_samples
from tests.support.definitions import close, d

pytestmark = [
    pytest.mark.quick,
    # cvxpy is asked for more digits than it always finds; the tests say how many they need
    pytest.mark.filterwarnings("ignore:Solution may be inaccurate"),
]

NAMES = ("nash-mtl", "cagrad")


def drawn(count, seed):
    """Three to five rows that conflict, and preferences for them."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        n = 3 + i % 3
        rows = rng.normal(size=(n, 6))
        rows = (rows - 0.7 * rows.mean(0)) * 10.0 ** rng.uniform(-1, 1, (n, 1))
        yield rows, rng.uniform(0.2, 4, n)


def bargain(rows, powers):
    """The direction of length √Σp with the largest product of improvements, each to its power."""
    cp = pytest.importorskip("cvxpy", reason="the problem as stated is left to cvxpy")
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # moves the product by a factor only
    found = cp.Variable(rows.shape[1])
    problem = cp.Problem(cp.Maximize(powers @ cp.log(units @ found)), [cp.norm(found) <= 1])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return np.sqrt(powers.sum()) * found.value / np.linalg.norm(found.value), problem.value


def test_nash_mtl_is_the_asymmetric_bargaining_solution():
    for rows, powers in drawn(6, 0):
        expected, value = bargain(rows, powers)
        found = d("nash-mtl", rows, preference=powers.tolist())
        assert close(found, expected, 1e-6)
        assert found @ found == pytest.approx(powers.sum(), rel=1e-9)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        ours = powers @ np.log(units @ found / np.linalg.norm(found))
        assert ours >= value - 1e-7 * powers.sum()


@settings(max_examples=60)
@given(drawn_samples(max_n=8), st.integers(0, 2**31))
def test_nash_mtl_is_where_no_direction_of_its_length_has_a_larger_product(sample, seed):
    """The gradient of Σ pᵢ log⟨gᵢ, d⟩ is d itself, so the concave problem is solved."""
    powers = 10.0 ** np.random.default_rng(seed).uniform(-2, 1, sample.count)
    chosen = gs.get_strategy("nash-mtl", preference=powers.tolist())
    terms = chosen.weights(sample.gram) * sample.norms
    if not terms.any():
        assert sample.distance() <= 1e-12
        return
    direction = sample.units.T @ terms
    gains = sample.units @ direction
    assert (gains > 0).all()
    if sample.distance() > 1e-4:
        assert close(sample.units.T @ (powers / gains), direction, 1e-6)
        assert direction @ direction == pytest.approx(powers.sum(), rel=1e-6)


def test_cagrad_is_its_problem_around_the_weighted_mean():
    cp = pytest.importorskip("cvxpy", reason="the problem as stated is left to cvxpy")
    for (rows, wanted), c in zip(drawn(8, 1), [0.2, 0.5, 1.0, 2.0] * 2, strict=True):
        mean = wanted @ rows / wanted.sum()
        moved = cp.Variable(rows.shape[1])
        ball = cp.norm(moved) <= c * np.linalg.norm(mean)
        problem = cp.Problem(cp.Maximize(cp.min(rows @ (mean + moved))), [ball])
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        found = d("cagrad", rows, preference=wanted.tolist(), c=c)
        assert (rows @ found).min() == pytest.approx(problem.value, rel=1e-7)
        assert np.linalg.norm(found - mean) <= c * np.linalg.norm(mean) * (1 + 1e-12)
        assert close(found, mean + moved.value, 1e-5)
        assert c < 1 or (rows @ found > 0).all()
        halved = d("cagrad", rows, preference=wanted.tolist(), c=c, rescale=2)
        assert close(halved * (1 + c), found, 1e-12)


@pytest.mark.parametrize("even", [1.0, [1.0] * 3, {"0": 1.0, "1": 1.0, "2": 1.0}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_equal_preferences_are_none(name, even):
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows = rng.normal(size=(3, 5)) * 10.0 ** rng.uniform(-2, 2, (3, 1))
        assert close(d(name, rows, preference=even), d(name, rows), 1e-12)


def test_one_factor_of_all_preferences():
    for rows, wanted in drawn(6, 3):
        more = (4 * wanted).tolist()
        plain = [d(name, rows, preference=wanted.tolist()) for name in NAMES]
        assert close(d("nash-mtl", rows, preference=more), 2 * plain[0], 1e-9)
        assert close(d("cagrad", rows, preference=more), plain[1], 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_preferences_go_with_their_objectives(name):
    for rows, wanted in drawn(6, 4):
        order = np.random.default_rng(5).permutation(len(rows))
        moved = d(name, rows[order], preference=wanted[order].tolist())
        assert close(moved, d(name, rows, preference=wanted.tolist()), 1e-9)


def test_a_preferred_objective_improves_more_and_weighted_losses_do_not_do_it():
    for rows, _ in drawn(6, 6):
        first = {"0": 5.0, **{str(i): 1.0 for i in range(1, len(rows))}}
        factors = np.array(list(first.values()))[:, None]
        plain, chosen = d("nash-mtl", rows), d("nash-mtl", rows, preference=first)
        share = rows[0] / np.linalg.norm(rows[0])
        assert share @ chosen / np.linalg.norm(chosen) > share @ plain / np.linalg.norm(plain)
        assert close(d("nash-mtl", factors * rows), plain)
        assert share @ d("cagrad", rows, preference=first) > share @ d("cagrad", rows)


def test_cagrad_with_weighted_losses_is_another_direction():
    rows, factors = np.array([[1.0, 0.0], [-0.5, 2.0]]), np.array([[5.0], [1.0]])
    found = [
        (d("cagrad", rows, preference=[5.0, 1.0], c=c), d("cagrad", factors * rows, c=c))
        for c in (0.0, 0.5)
    ]
    assert close(3 * found[0][0], found[0][1])  # the weighted mean alone is the same
    around, weighted = found[1]
    assert around @ weighted < 0.99 * np.linalg.norm(around) * np.linalg.norm(weighted)


def test_in_a_step_they_are_given_by_name():
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    losses = {"a": weight[0] - 0.5 * weight[1], "b": weight[1] - 0.5 * weight[0]}
    preference = {"b": 4.0, "a": 1.0, "of another group": 9.0}
    surgery = gs.Surgery(gs.get_strategy("nash-mtl", preference=preference), {"all": [weight]})
    surgery.backward(losses)
    rows = np.array([[1.0, -0.5], [-0.5, 1.0]])
    assert close(weight.grad.numpy(), d("nash-mtl", rows, preference=[1.0, 4.0]), 1e-12)


@pytest.mark.parametrize("wanted", [0.0, -1.0, float("nan"), float("inf"), [1.0, 0.0], "high"])
@pytest.mark.parametrize("name", NAMES)
def test_preferences_out_of_range_are_errors_where_they_are_given(name, wanted):
    with pytest.raises(gs.StrategyError, match="preference is a number above 0"):
        gs.get_strategy(name, preference=wanted)


@pytest.mark.parametrize("name", NAMES)
def test_preferences_that_do_not_fit_the_objectives_are_errors(name):
    with pytest.raises(gs.InputError, match="preference: nothing given for '1'; given: '0', 'b'"):
        gs.get_strategy(name, preference={"0": 1.0, "b": 2.0}).weights(np.eye(2))
    with pytest.raises(gs.InputError, match="preference: 3 numbers in order do not fit"):
        gs.get_strategy(name, preference=[1.0, 2.0, 3.0]).weights(np.eye(2), objectives=("a", "b"))

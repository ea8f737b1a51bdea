"""mgda with a least weight per objective: PE-LTR's quadratic programme, and where it ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradsurgery as gs
from gradsurgery.testing import drawn_samples

pytestmark = pytest.mark.quick


def chosen(floors, **options):
    return gs.get_strategy("mgda", floors=np.asarray(floors).tolist(), **options)


def test_it_is_the_problem_of_pe_ltr():
    """min ‖Σ wᵢgᵢ‖² s.t. Σ w = 1, w >= b, by cvxpy."""
    cp = pytest.importorskip("cvxpy", reason="the quadratic programme is compared with cvxpy's")
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        for _ in range(3):
            rows = rng.normal(size=(n, 6)) * 10.0 ** rng.uniform(-1, 1, (n, 1))
            floors = rng.dirichlet(np.ones(n)) * rng.uniform(0.1, 0.9)
            share = cp.Variable(n)
            problem = cp.Problem(
                cp.Minimize(cp.sum_squares(rows.T @ share)), [cp.sum(share) == 1, share >= floors]
            )
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12)
            found = chosen(floors).weights(rows @ rows.T)
            assert found == pytest.approx(share.value, abs=1e-6)
            assert found @ rows @ rows.T @ found == pytest.approx(problem.value, rel=1e-7)


@settings(max_examples=60)
@given(drawn_samples(max_n=8), st.integers(0, 2**31))
def test_no_exchange_above_the_floors_makes_it_shorter(sample, seed):
    rng = np.random.default_rng(seed)
    floors = rng.dirichlet(np.ones(sample.count)) * rng.uniform(0, 1)
    found = chosen(floors).weights(sample.gram)
    if not found.any():  # nothing but rounding is left
        return
    assert (found >= floors).all()
    assert found.sum() == pytest.approx(1, abs=1e-12)
    rows = sample.units * (sample.norms / sample.norms.max())[:, None]
    lengths = np.linalg.norm(rows, axis=1)
    slope = rows @ (rows.T @ found)
    corners = floors + (1 - floors.sum()) * np.eye(sample.count)
    gain = found @ slope - corners @ slope
    assert (gain <= 1e-9 * (corners @ lengths) * (found @ lengths)).all()


def test_floors_lead_from_the_min_norm_point_to_given_weights():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(4, 6))
    gram, wanted = rows @ rows.T, rng.dirichlet(np.ones(4))
    plain = gs.get_strategy("mgda").weights(gram)
    assert gs.get_strategy("mgda", floors=0.0).weights(gram).tolist() == plain.tolist()
    assert chosen(wanted / wanted.sum()).weights(gram) == pytest.approx(wanted, abs=1e-9)
    assert gs.get_strategy("mgda", floors=0.25).weights(gram).tolist() == [0.25] * 4
    norms = np.linalg.norm(rows, axis=1)
    unit = gram / norms / norms[:, None]
    expected = chosen(0.5 * wanted).weights(unit) / norms
    assert chosen(0.5 * wanted, normalize="l2").weights(gram) == pytest.approx(expected)


def test_floors_go_with_their_objectives():
    gram = np.array([[1.0, -0.2, 0.1], [-0.2, 4.0, 0.3], [0.1, 0.3, 9.0]])
    order = [2, 0, 1]
    floors = np.array([0.0, 0.3, 0.4])
    found = chosen(floors).weights(gram)
    assert chosen(floors[order]).weights(gram[np.ix_(order, order)]) == pytest.approx(found[order])
    assert found[1:] == pytest.approx(floors[1:])
    named = {"c": 0.4, "a": 0.0, "b": 0.3, "of another group": 0.9}
    by_name = gs.get_strategy("mgda", floors=named)
    assert by_name.weights(gram, objectives=("a", "b", "c")).tolist() == found.tolist()


@pytest.mark.parametrize("floors", [-0.1, 1.1, float("nan"), [0.5, -0.5], "most"], ids=str)
def test_floors_out_of_range_are_errors_where_they_are_given(floors):
    with pytest.raises(gs.StrategyError, match="floors is a number from 0 to 1"):
        gs.get_strategy("mgda", floors=floors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floors": [0.6, 0.6]}, "floors sum to at most 1 in a group; got {'0': 0.6, '1': 0.6}"),
        ({"floors": {"0": 0.1, "b": 0.1}}, "floors: nothing given for '1'; given: '0', 'b'"),
        ({"floors": 0.1, "radius": 0.5}, "floors= stand alone"),
        ({"floors": 0.1, "solver": "frank-wolfe"}, "floors= stand alone"),
    ],
    ids=str,
)
def test_floors_that_do_not_fit_are_errors(options, message):
    with pytest.raises(gs.InputError, match=message):
        gs.get_strategy("mgda", **options).weights(np.eye(2))


def test_weights_of_losses_make_the_heavier_one_fall_less():
    """What the docstring says of preferences: r⟨gᵢ, d⟩ is ‖d‖² for all that have a weight."""
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    rows = torch.tensor([[2.0, 1.0, 0.0], [-1.0, 2.0, 1.0]], dtype=torch.float64)
    wanted = {"a": 3.0, "b": 1.0}
    losses = dict(zip("ab", rows @ weight, strict=True))
    gs.Surgery("mgda", [weight]).backward(losses, weights=wanted)
    found = rows @ weight.grad
    assert torch.allclose(found * torch.tensor([3.0, 1.0]), weight.grad @ weight.grad)
    assert 0 < found[0] < found[1]

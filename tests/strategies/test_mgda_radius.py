"""mgda within a radius of given weights: FedMGDA+ as its quadratic programme, and what it joins."""

import numpy as np
import pytest

import gradsurgery as gs

pytestmark = pytest.mark.quick


def fedmgda(rows, radius, center):
    """Weights on unit gradients, at most a radius from given ones, by cvxpy; the direction."""
    cp = pytest.importorskip("cvxpy", reason="the quadratic programme is compared with cvxpy's")
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    share = cp.Variable(len(rows), nonneg=True)
    limits = [cp.sum(share) == 1, cp.norm_inf(share - center) <= radius]
    cp.Problem(cp.Minimize(cp.sum_squares(units.T @ share)), limits).solve(solver="CLARABEL")
    return units.T @ share.value


@pytest.mark.parametrize("radius", [0.05, 0.2, 0.5])
def test_on_unit_gradients_it_is_fedmgda_plus(radius):
    rng = np.random.default_rng(0)
    for n in (2, 4, 6):
        for even in (True, False):
            rows = rng.normal(size=(n, 8)) * 10.0 ** rng.uniform(-2, 2, (n, 1)) + 0.3
            center = np.full(n, 1 / n) if even else rng.dirichlet(np.ones(n))
            chosen = gs.get_strategy(
                "mgda",
                normalize="l2",
                radius=radius,
                center=None if even else (7 * center).tolist(),
            )
            expected = fedmgda(rows, radius, center)
            for scale in (1.0, 1e-20, 1e20):
                found = rows.T @ chosen.weights(rows @ rows.T * scale**2) * scale
                assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


def test_a_radius_joins_the_mean_and_the_min_norm_point():
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = rng.normal(size=(4, 6))
        gram = rows @ rows.T
        assert gs.get_strategy("mgda", radius=0.0).weights(gram).tolist() == [0.25] * 4
        plain = gs.get_strategy("mgda").weights(gram)
        assert gs.get_strategy("mgda", radius=1.0).weights(gram).tolist() == plain.tolist()
        lengths = [
            weights @ gram @ weights
            for weights in (gs.get_strategy("mgda", radius=r).weights(gram) for r in (0, 0.1, 0.3))
        ]
        assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    "options", [{"center": {"0": 1.0, "1": 1.0}}, {"radius": 0.1, "solver": "frank-wolfe"}], ids=str
)
def test_options_that_do_not_go_together_are_errors(options):
    with pytest.raises(gs.InputError, match="center= is that of radius="):
        gs.get_strategy("mgda", **options).weights(np.eye(2))

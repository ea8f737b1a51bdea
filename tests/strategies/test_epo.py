"""EPO Search against its linear programme as the paper states it, and on a concave front."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.definitions import d

pytestmark = pytest.mark.quick


def programme(rows, losses, preference, descend):
    """Equations 9 to 13 and 24 by cvxpy: β, its objective, and the floors of ⟨gⱼ, d⟩."""
    cp = pytest.importorskip("cvxpy", reason="the linear programme is compared with cvxpy's")
    n = len(rows)
    shares = preference * losses / (preference @ losses)
    spread = np.sum(shares * np.log(shares / (1 / n)))
    balance = rows.T @ (preference * (np.log(shares / (1 / n)) - spread))
    aim = rows.sum(0) if descend else balance
    floors = np.zeros(n)
    if not descend and (rows @ balance > 0).any():
        largest = preference * losses >= (preference * losses).max() * (1 - 1e-9)
        floors = np.where(rows @ balance > 0, -np.inf, rows @ balance)
        floors[largest] = 0
    beta = cp.Variable(n, nonneg=True)
    limits = [cp.sum(beta) == 1]
    limits += [rows[j] @ rows.T @ beta >= floors[j] for j in range(n) if np.isfinite(floors[j])]
    problem = cp.Problem(cp.Maximize((rows @ aim) @ beta), limits)
    problem.solve(solver="CLARABEL")
    return problem.value, aim, floors


@pytest.mark.parametrize("descend", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_epo_solves_its_linear_programme(n, descend):
    rng = np.random.default_rng(n)
    bent = 0
    for _ in range(12):
        rows = rng.normal(size=(n, 6)) - 0.5 * rng.normal(size=6)
        rows *= 10.0 ** rng.uniform(-1, 1, (n, 1))
        losses, preference = rng.uniform(0.1, 3, n), rng.uniform(0.2, 2, n)
        best, aim, floors = programme(rows, losses, preference, descend)
        options = {"preference": preference.tolist(), "tolerance": 100.0 if descend else 0.0}
        for scale in (1.0, 1e-20, 1e20):
            chosen = gs.get_strategy("epo", **options)
            gram = rows @ rows.T * scale**2
            beta = chosen.weights(gram, losses=losses * scale)
            size = np.linalg.norm(rows, axis=1)
            assert (beta >= 0).all()
            assert beta.sum() == pytest.approx(1, abs=1e-12)
            found = rows.T @ beta
            assert (rows @ found >= floors - 1e-8 * size * size.max()).all()
            assert abs(aim @ found - best) <= 1e-6 * np.linalg.norm(aim) * size.max()
            bent += int((beta > 1e-6).sum() > 1)
    assert bent


def toy(x):
    """Two losses with a concave front between ±1/√m in each coordinate."""
    centre = 1 / len(x) ** 0.5
    return {
        "a": 1 - torch.exp(-(x - centre).square().sum()),
        "b": 1 - torch.exp(-(x + centre).square().sum()),
    }


@pytest.mark.sampled(keep=lambda name: "preference1" in name)
@pytest.mark.parametrize("preference", [(1.0, 1.0), (0.3, 1.0), (1.0, 0.2)])
def test_epo_finds_the_point_of_a_concave_front_with_that_preference(preference):
    torch.manual_seed(0)
    x = (0.3 * torch.randn(5, dtype=torch.float64)).requires_grad_()
    surgery = gs.Surgery("epo", [x], preference=dict(zip("ab", preference, strict=True)))
    for _ in range(100):
        x.grad = None
        surgery.backward(toy(x))
        with torch.no_grad():
            x -= 0.1 * x.grad
    a, b = (loss.item() for loss in toy(x).values())
    assert preference[0] * a == pytest.approx(preference[1] * b, rel=0.03)
    on_front = x.detach().mean()  # the front is the segment between the two minima
    assert float((x.detach() - on_front).norm()) < 0.02


def test_epo_raises_no_objective_where_the_losses_are_balanced():
    rng = np.random.default_rng(5)
    for _ in range(20):
        rows = rng.normal(size=(3, 4))
        found = d("epo", rows, losses=[2.0, 2.0, 2.0])
        assert (rows @ found >= -1e-9 * np.linalg.norm(rows) ** 2).all()


def test_a_loss_of_zero_is_an_error_that_names_it():
    with pytest.raises(gs.InputError, match=r"needs losses above 0; '1' is 0"):
        gs.get_strategy("epo").weights(np.eye(2), losses=[1.0, 0.0])


def test_gradients_of_zero_are_no_error():
    assert d("epo", np.zeros((3, 2))).tolist() == [0.0, 0.0]
    assert d("epo", [[0.0, 0.0], [1.0, 2.0]]).tolist() == [1.0, 2.0]

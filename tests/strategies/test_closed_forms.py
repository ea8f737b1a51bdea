"""Closed forms and the papers' loops: CAGrad, PCGrad, MGDA, random and constant weights."""

import itertools

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.strategies import direction, jacobian

pytestmark = pytest.mark.quick


def test_closed_forms_for_two():
    rng = np.random.default_rng(1)
    for _ in range(100):
        a, b = rng.normal(size=(2, 5)) * 10.0 ** rng.uniform(-2, 2, (2, 1))
        share = np.clip((b @ b - a @ b) / ((a - b) @ (a - b)), 0, 1)
        assert np.allclose(direction("mgda", np.stack([a, b])), share * a + (1 - share) * b)
        assert np.allclose(direction("cagrad", np.stack([a, b]), c=0.0), (a + b) / 2)
        assert np.allclose(direction("cagrad", np.stack([a, b]), c=1e-9), (a + b) / 2)
        if a @ b < 0:
            expected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a
        else:
            expected = a + b
        assert np.allclose(direction("pcgrad", np.stack([a, b])), expected)
        assert np.allclose(direction("pcgrad", np.stack([a, b]), reduction="mean"), expected / 2)


def cagrad_by_definition(rows, c, steps=20000):
    """CAGrad's dual on a fine grid of the segment, for two rows."""
    mean = rows.mean(0)
    share = np.linspace(0, 1, steps)[:, None]
    points = share * rows[0] + (1 - share) * rows[1]
    lengths = np.linalg.norm(points, axis=1)
    best = np.argmin(points @ mean + c * np.linalg.norm(mean) * lengths)
    return mean + c * np.linalg.norm(mean) * points[best] / lengths[best]


@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 2.0])
def test_cagrad_is_its_dual(c):
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows = rng.normal(size=(2, 4)) * [[1.0], [3.0]]
        expected = cagrad_by_definition(rows, c)
        found = direction("cagrad", rows, c=c).numpy()
        assert np.allclose(found, expected, atol=2e-3 * np.abs(expected).max())
        assert np.linalg.norm(found - rows.mean(0)) <= c * np.linalg.norm(rows.mean(0)) * (1 + 1e-9)
        assert (rows @ found).min() >= (rows @ expected).min() - 1e-9
        assert np.allclose(direction("cagrad", rows, c=c, rescale=1) * (1 + c**2), found)
        assert np.allclose(direction("cagrad", rows, c=c, rescale=2) * (1 + c), found)


def pcgrad_by_definition(rows, orders):
    total = np.zeros(rows.shape[1])
    for i, order in enumerate(orders):
        g = rows[i].copy()
        for j in order:
            if g @ rows[j] < 0:
                g -= (g @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        total += g
    return total


class Ordered:
    """A stand-in for the generator that deals out given orders."""

    def __init__(self, orders):
        self.orders = orders

    def permuted(self, others, axis):
        assert axis == 1
        assert sorted(others[0].tolist()) == sorted(self.orders[0])
        return np.array(self.orders)


def test_pcgrad_is_the_papers_loop_for_every_order():
    rng = np.random.default_rng(3)
    others = [list(itertools.permutations([j for j in range(4) if j != i])) for i in range(4)]
    for orders in list(itertools.product(*others))[::37]:
        rows = rng.normal(size=(4, 3)) * 10.0 ** rng.uniform(-3, 3, (4, 1))
        weights = gs.get_strategy("pcgrad").weights(rows @ rows.T, rng=Ordered(orders))
        expected = pcgrad_by_definition(rows, orders)
        assert np.allclose(rows.T @ weights, expected, rtol=1e-9, atol=1e-9 * np.abs(rows).max())


def test_pcgrad_draws_a_fresh_order_for_each_and_each_step():
    rows = jacobian(np.random.default_rng(0), 6, "pulling apart")
    found = {
        tuple(gs.get_strategy("pcgrad").weights(rows @ rows.T, step=s).round(9)) for s in range(20)
    }
    assert len(found) > 5
    assert (
        gs.get_strategy("pcgrad").weights(rows @ rows.T, step=3).tolist()
        == gs.get_strategy("pcgrad").weights(rows @ rows.T, step=3).tolist()
    )


@pytest.mark.parametrize("normalize", ["none", "l2", "loss", "loss+"])
def test_mgda_combines_the_gradients_it_solved_on(normalize):
    rng = np.random.default_rng(4)
    for _ in range(50):
        rows = rng.normal(size=(3, 4)) * 10.0 ** rng.uniform(-2, 2, (3, 1))
        losses = rng.uniform(0.1, 5, 3)
        divisor = {
            "none": 1,
            "l2": np.linalg.norm(rows, axis=1),
            "loss": losses,
            "loss+": losses * np.linalg.norm(rows, axis=1),
        }[normalize]
        scaled = rows / np.reshape(divisor, (-1, 1))
        found = gs.get_strategy("mgda", normalize=normalize)(
            torch.as_tensor(rows), losses=losses
        ).numpy()
        # the min-norm point p of the scaled hull: ⟨ĝᵢ, p⟩ >= ‖p‖² for all i
        assert (
            scaled @ found >= found @ found - 1e-9 * np.linalg.norm(scaled, axis=1).max() ** 2
        ).all()
        assert (rows @ found > -1e-9).all()


def test_random_weights_are_a_softmax_of_normals():
    draws = np.array([gs.get_strategy("random").weights(np.eye(3), step=s) for s in range(3000)])
    assert np.allclose(draws.sum(1), 1)
    logs = np.log(draws[:, 0] / draws[:, 1]) / np.sqrt(2)
    assert abs(logs.mean()) < 0.1
    assert abs(logs.std() - 1) < 0.05


def test_constant_by_name_and_in_order():
    by_name = gs.get_strategy("constant", preference={"b": 2.0, "a": 1.0})
    assert by_name.weights(np.eye(2), objectives=("a", "b")).tolist() == [1.0, 2.0]
    assert gs.get_strategy("constant", preference=[1.0, 3.0]).weights(np.eye(2)).tolist() == [
        1.0,
        3.0,
    ]
    with pytest.raises(gs.InputError, match="'c'"):
        by_name.weights(np.eye(2), objectives=("a", "c"))

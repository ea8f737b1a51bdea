"""Strategies with state against definitions written out over several steps."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.definitions import close, cosine, d

pytestmark = pytest.mark.quick

# ---- definitions written out


def gradvac_by_definition(rows, order, target, beta):
    total = np.zeros(rows.shape[1])
    for i, others in enumerate(order):
        g = rows[i].copy()
        for j in others:
            length, norm = np.linalg.norm(g), np.linalg.norm(rows[j])
            rho = g @ rows[j] / length / norm
            if rho < target[i, j]:
                g = g + rows[j] * length * (
                    target[i, j] * np.sqrt(1 - rho**2) - rho * np.sqrt(1 - target[i, j] ** 2)
                ) / (norm * np.sqrt(1 - target[i, j] ** 2))
                assert cosine(np.stack([g, rows[j]])) == pytest.approx(target[i, j])
            target[i, j] = (1 - beta) * target[i, j] + beta * rho
        total += g
    return total


class Ordered:
    """A stand-in for the generator that deals out given orders."""

    def __init__(self, orders):
        self.orders = orders

    def permuted(self, others, axis):
        return np.array(self.orders)


def test_gradvac_is_its_algorithm_over_several_steps():
    rng = np.random.default_rng(0)
    state, target = gs.State(), np.zeros((4, 4))
    for _ in range(6):
        rows = rng.normal(size=(4, 5)) + 0.3
        order = [rng.permutation([j for j in range(4) if j != i]).tolist() for i in range(4)]
        expected = gradvac_by_definition(rows, order, target, 0.3)
        weights = gs.get_strategy("gradvac", beta=0.3).weights(
            rows @ rows.T, state=state, rng=Ordered(order)
        )
        assert close(rows.T @ weights, expected)


def test_excess_mtl_over_several_steps():
    rng = np.random.default_rng(7)
    state, squares, weights, first = gs.State(), np.zeros((3, 4)), np.ones(3), None
    for _ in range(4):
        rows = rng.normal(size=(3, 4))
        squares += rows**2
        excess = (rows**2 / np.sqrt(squares)).sum(1)
        first = excess if first is None else first
        weights = weights * np.exp(0.5 * excess / first)
        weights = 3 * weights / weights.sum()
        assert close(d("excess-mtl", rows, state=state, eta=0.5), rows.T @ weights)


def test_moco_over_several_steps():
    rng = np.random.default_rng(8)
    state, y, lam = gs.State(), np.zeros((3, 4)), np.full(3, 1 / 3)
    for k in range(1, 5):
        rows, losses = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, 3)
        y = y - 0.5 / k**0.5 * (
            y - losses[:, None] * rows / np.linalg.norm(rows, axis=1, keepdims=True)
        )
        lam = gs.solvers.project_simplex(lam - 0.1 / k**0.5 * (y @ y.T @ lam + 0.2 * lam))
        assert close(d("moco", rows, losses=losses, state=state, rho=0.2), y.T @ lam)


def test_db_mtl_over_several_steps():
    rng = np.random.default_rng(9)
    state, y = gs.State(), np.zeros((3, 4))
    for k in range(1, 5):
        rows, losses = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, 3)
        beta = 0.9 / k**0.5
        y = beta * y + (1 - beta) * rows / losses[:, None]
        norms = np.linalg.norm(y, axis=1)
        assert close(
            d("db-mtl", rows, losses=losses, state=state, beta_decay=0.5),
            (y * (norms.max() / norms)[:, None]).sum(0),
        )


def test_gradnorm_learns_by_torchs_adam():
    rng = np.random.default_rng(10)
    state = gs.State()
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=0.025)
    first = None
    for _ in range(6):
        rows, losses = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, 3)
        first = losses if first is None else first
        assert close(
            d("gradnorm", rows, losses=losses, state=state), rows.T @ weights.detach().numpy()
        )
        norms = torch.as_tensor(np.linalg.norm(rows, axis=1))
        rate = torch.as_tensor(losses / first / (losses / first).mean())
        mean = (weights * norms).mean().detach()
        loss = (weights * norms / mean - rate**1.5).abs().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            weights.clamp_(min=0)
            weights *= 3 / weights.sum()


def test_cr_mogm_averages_and_forwards():
    rng = np.random.default_rng(11)
    for base in (
        "mgda",
        "pcgrad",
        "nash-mtl",
        "gradvac",
        "mgda(normalize='loss')",
        gs.get_strategy("cagrad", c=0.9),
    ):
        state, inner, average = gs.State(), gs.State(), None
        wrapped = gs.get_strategy(base)
        for k in range(4):
            rows = rng.normal(size=(3, 4))
            extra = {"state": inner} if "state" in wrapped.inputs else {}
            newest = wrapped.weights(rows @ rows.T, step=k, losses=[1.0, 2.0, 3.0], **extra)
            average = newest if average is None else 0.7 * average + 0.3 * newest
            found = gs.get_strategy("cr-mogm", base=base, alpha=0.7).weights(
                rows @ rows.T, step=k, losses=[1.0, 2.0, 3.0], state=state
            )
            assert found == pytest.approx(average)
    for base in ("graddrop", "cr-mogm"):
        with pytest.raises(gs.StrategyError, match="cannot wrap"):
            _ = gs.get_strategy("cr-mogm", base=base).inputs

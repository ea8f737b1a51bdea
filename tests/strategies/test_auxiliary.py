"""Strategies with one main objective against definitions written out apart, over several steps."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.definitions import close, d

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("weighted", [True, False])
def test_aux_cosine_is_its_definition(weighted, scale):
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = rng.normal(size=(4, 5)) * 10.0 ** rng.uniform(-3, 3, (4, 1)) * scale
        expected = rows[2].copy()
        for j in (0, 1, 3):
            cosine = rows[2] @ rows[j] / np.linalg.norm(rows[2]) / np.linalg.norm(rows[j])
            if cosine > 0:
                expected += rows[j] * (cosine if weighted else 1.0)
        found = d("aux-cosine", rows, main="2", weighted=weighted)
        assert close(found, expected)
        assert found @ rows[2] >= rows[2] @ rows[2] * (1 - 1e-12)


def test_a_cosine_of_nothing_but_rounding_leaves_an_objective_out():
    rng = np.random.default_rng(1)
    for _ in range(50):
        main, other = rng.normal(size=(2, 30))
        other -= (other @ main) / (main @ main) * main
        assert close(d("aux-cosine", [main, other], weighted=False), main, 1e-12)


def bloop_step(rows, mean, lam, rho, current):
    """The direction and the mean after the step, as in Algorithm 1 (or in the official code)."""
    main, other = rows[0], rows[1:].sum(0)
    after = (1 - rho) * mean + rho * main
    along = after if current else mean
    return main + lam * (other - (other @ along) / (along @ along) * along), after


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("current", [False, True])
def test_bloop_over_several_steps(current, scale):
    rng = np.random.default_rng(2)
    state, mean = gs.State(), None
    for _ in range(5):
        rows = rng.normal(size=(3, 6)) * scale
        mean = rows[0] if mean is None else mean
        expected, mean = bloop_step(rows, mean, 0.7, 0.2, current)
        found = d("bloop", rows, state=state, lam=0.7, rho=0.2, current=current)
        assert close(found, expected)


def test_the_first_step_of_bloop_descends_on_the_main_loss_as_its_gradient_does():
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = rng.normal(size=(3, 6)) * 10.0 ** rng.uniform(-6, 6, (3, 1))
        found = d("bloop", rows, state=gs.State(), main="1", lam=2.0)
        size = np.linalg.norm(found) * np.linalg.norm(rows[1])
        assert abs(found @ rows[1] - rows[1] @ rows[1]) <= 1e-9 * size


def test_bloop_keeps_one_gradient_whatever_the_number_of_objectives():
    model = torch.nn.Linear(4, 3)
    surgery = gs.Surgery("bloop", model, main="b")
    out = model(torch.ones(2, 4))
    surgery.backward({"a": out[:, 0].sum(), "b": out[:, 1].sum(), "c": out.square().sum()})
    ((_, state),) = surgery.state_dict()["groups"]
    assert {key for key, _ in state["tensors"]["mean"]} == {("b", "weight"), ("b", "bias")}


def metabalance_step(blocks, length, relax, beta):
    """One step on gradients [k][n, d], as the official code makes it; m starts at zero."""
    directions = []
    for k, rows in enumerate(blocks):
        total = np.zeros(rows.shape[1])
        for i, row in enumerate(rows):
            length[k, i] = beta * length[k, i] + (1 - beta) * np.linalg.norm(row)
            total += length[k, 0] * row / length[k, i] * relax + row * (1 - relax)
        directions.append(total)
    return np.concatenate(directions)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_metabalance_over_several_steps(scale):
    rng = np.random.default_rng(4)
    state, length = gs.State(), np.zeros((2, 3))
    chosen = gs.get_strategy("metabalance", relax=0.6, beta=0.8)
    for _ in range(5):
        blocks = [rng.normal(size=(3, m)) * 10.0 ** rng.uniform(-3, 3, (3, 1)) for m in (2, 4)]
        rows = torch.tensor(np.concatenate(blocks, 1)) * scale
        found = chosen(rows, splits=(2, 4), state=state).numpy()
        expected = metabalance_step([block * scale for block in blocks], length, 0.6, 0.8)
        assert close(found, expected)


def test_an_auxiliary_objective_that_comes_later_is_not_taken_for_a_short_one():
    chosen, state = gs.get_strategy("metabalance", relax=1.0), gs.State()
    for _ in range(20):
        chosen.weights(np.eye(1), state=state)
    found = chosen.weights(np.diag([1.0, 4.0]), state=state)
    assert found.round(12).tolist() == [[1.0, 0.5]]


@pytest.mark.parametrize("name", ["aux-cosine", "bloop", "metabalance"])
def test_where_the_main_objective_does_not_reach_the_direction_is_the_sum(name):
    rows = np.array([[1.0, 2.0], [-3.0, 1.0]])
    options = {} if name == "aux-cosine" else {"state": gs.State()}
    assert d(name, rows, main="elsewhere", **options).tolist() == [-2.0, 3.0]


@pytest.mark.parametrize("name", ["bloop", "metabalance"])
def test_a_main_gradient_of_zero_is_no_division_by_zero(name):
    rows = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert np.isfinite(d(name, rows, state=gs.State())).all()

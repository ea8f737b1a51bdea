"""unit-sum against its definition, and the published methods that are settings of it."""

import numpy as np
import pytest

import gradsurgery as gs
from tests.support.definitions import close, d, pairs

pytestmark = pytest.mark.quick


def written_out(rows, power, preference, length):
    """The formula, one objective after the other."""
    norms = [sum(x * x for x in row) ** 0.5 for row in rows]
    scale = {
        "unit": 1.0,
        "mean": sum(n**power for n in norms) / len(norms),
        "total": len(norms) * sum(n * n for n in norms) ** (power / 2),
    }[length]
    total = np.zeros(rows.shape[1])
    for row, norm, p in zip(rows, norms, preference, strict=True):
        total += scale * p * row / norm**power
    return total


@pytest.mark.parametrize("length", ["unit", "mean", "total"])
def test_it_is_its_formula(length):
    rng = np.random.default_rng(0)
    for power in (0.0, 0.5, 1.0, 1.5, 2.0):
        rows, preference = rng.normal(size=(4, 6)), rng.normal(size=4)
        found = d("unit-sum", rows, power=power, preference=preference.tolist(), scale=length)
        assert close(found, written_out(rows, power, preference, length), 1e-12)


def test_ngdiff():
    """g_R/‖g_R‖ − g_F/‖g_F‖, by a preference or by the sign of the loss; it always retains more
    and forgets more, to first order (the paper's property of the direction).
    """
    for retain, forget in pairs():
        expected = retain / np.linalg.norm(retain) - forget / np.linalg.norm(forget)
        rows = np.stack([retain, forget])
        found = d("unit-sum", rows, preference={"0": 1.0, "1": -1.0})
        assert close(found, expected)
        assert close(d("unit-sum", np.stack([retain, -forget])), expected)
        assert found @ retain >= 0 >= found @ forget


@pytest.mark.parametrize("ntk_exp", [0.5, 0.75])
def test_ntkmtl_as_its_official_code_runs(ntk_exp):
    """(tr(G)/Gᵢᵢ)^ntk_exp, then times the number of tasks."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3, 5)) * [[1.0], [30.0], [0.2]]
    gram = rows @ rows.T
    expected = 3 * rows.T @ (np.trace(gram) / np.diag(gram)) ** ntk_exp
    assert close(d("unit-sum", rows, power=2 * ntk_exp, scale="total"), expected, 1e-12)


def test_jaxpis_grad_norm_over_several_updates():
    """w ← 0.9w + 0.1 mean(n)/n, from 1."""
    rng = np.random.default_rng(2)
    state, weights = gs.State(), np.ones(3)
    for _ in range(5):
        rows = rng.normal(size=(3, 4)) * [[1.0], [10.0], [0.01]]
        norms = np.linalg.norm(rows, axis=1)
        weights = weights * 0.9 + (1 - 0.9) * norms.mean() / norms
        found = d("unit-sum", rows, scale="mean", beta=0.9, average="weights", state=state)
        assert close(found, rows.T @ weights, 1e-12)


def test_running_norms_are_corrected_for_their_start():
    rng = np.random.default_rng(3)
    state, history = gs.State(), []
    for t in range(1, 6):
        rows = rng.normal(size=(3, 4))
        history.append(np.linalg.norm(rows, axis=1))
        shares = 0.8 ** np.arange(t - 1, -1, -1.0)
        mean = shares @ np.stack(history) / shares.sum()
        found = d("unit-sum", rows, beta=0.8, state=state, scale="mean")
        assert close(found, (rows * (mean.mean() / mean)[:, None]).sum(0), 1e-12)


def test_a_zero_gradient_keeps_its_running_weight():
    state = gs.State()
    options = {"scale": "mean", "beta": 0.5, "average": "weights", "state": state}
    d("unit-sum", np.diag([1.0, 3.0]), **options)  # (0.5 + 1, 0.5 + 1/3)
    d("unit-sum", np.diag([1.0, 0.0]), **options)
    found = d("unit-sum", np.diag([1.0, 3.0]), **options)
    assert found[1] / 3 == pytest.approx(0.5 * (0.5 + 1 / 3) + 1 / 3)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_no_scale_matters_to_the_direction(scale):
    rows = np.array([[1.0, 2.0], [-3.0, 0.5]])
    for length in ("mean", "total"):
        plain = d("unit-sum", rows, power=2.0, scale=length)
        assert close(d("unit-sum", rows * scale, power=2.0, scale=length) / scale, plain, 1e-12)
    assert close(d("unit-sum", rows * scale), d("unit-sum", rows), 1e-12)
    assert d("unit-sum", rows * 0.0).tolist() == [0.0, 0.0]

"""Options and limits of single strategies."""

import math

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery import solvers


def test_pcd_takes_a_share_per_secondary():
    rng = np.random.default_rng(7)
    for _ in range(30):
        rows = rng.standard_normal((3, 6))
        gram = rows @ rows.T
        shares = {"1": 0.4, "2": 0.05}
        found = gs.get_strategy("pcd", tau=shares).weights(gram, state=gs.State())
        in_order = gs.get_strategy("pcd", tau=[1.0, 0.4, 0.05])
        assert found == pytest.approx(in_order.weights(gram, state=gs.State()))
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # as the first step normalises
        floors = [-np.inf, 0.4, 0.05]
        expected = solvers.nearest_above(units @ units.T, [1.0, 0, 0], floors).value @ units
        d = found @ rows
        assert d / np.linalg.norm(d) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-9)
    for bad in (1.5, [0.0, 2.0], {"1": -0.1}, {"1": "x"}, True):
        with pytest.raises(gs.StrategyError, match="tau is a number from 0 to 1, or one such"):
            gs.get_strategy("pcd", tau=bad)
    with pytest.raises(gs.InputError, match="tau: nothing given for '2'"):
        gs.get_strategy("pcd", tau={"1": 0.1}).weights(np.eye(3), state=gs.State())


def test_sdmgrad_takes_a_preference():
    cross = np.broadcast_to(np.eye(2), (3, 3, 2, 2))

    def weights(**options):
        chosen = gs.get_strategy("sdmgrad", **options)
        return chosen.weights(np.eye(2), cross=cross, state=gs.State())[2]

    assert weights(preference=[0.5, 0.5]) == pytest.approx(weights())
    one_sided = weights(lam=1e6, lr=1e-9, preference={"0": 0.9, "1": 0.1})
    assert one_sided == pytest.approx([0.9, 0.1], abs=1e-4)
    with pytest.raises(gs.StrategyError, match="preference is a number at least 0"):
        gs.get_strategy("sdmgrad", preference=[0.5, -0.5])


def test_cr_mogm_starts_from_initial_weights():
    chosen = gs.get_strategy("cr-mogm", base="mgda", initial={"a": 1.0, "b": 0.0})
    state = gs.State()
    expected = np.array([1.0, 0.0])
    for gram in ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 3.0]]):
        found = chosen.weights(gram, state=state, objectives=("a", "b"))
        expected = 0.9 * expected + 0.1 * gs.get_strategy("mgda").weights(gram)
        assert found == pytest.approx(expected)
    promised = {claim.name for claim in chosen.claims if claim.holds(2, 2, chosen.options)}
    assert promised == {"homogeneous", "permutation-equivariant", "deterministic"}


def test_excess_mtl_warms_up():
    """Weights stay for three steps, whose mean excess then takes the place of the first."""
    rng = np.random.default_rng(8)
    chosen, state = gs.get_strategy("excess-mtl", warmup=3, eta=0.5), gs.State()
    squares, total, weights = 0.0, 0.0, np.ones(2)
    for k in range(7):
        rows = rng.standard_normal((2, 4)) * [[1.0], [3.0]]
        squares = squares + rows**2
        excess = (rows**2 / np.sqrt(squares)).sum(1)
        if k < 3:
            total = total + excess
        else:
            weights = weights * np.exp(0.5 * excess / (total / 3))
            weights *= 2 / weights.sum()
        d = chosen(torch.from_numpy(rows), state=state).numpy()
        assert d == pytest.approx(rows.T @ weights)


def test_fairgrad_with_alpha_zero_is_the_sum():
    rows = np.random.default_rng(9).standard_normal((4, 3))
    chosen = gs.get_strategy("fairgrad(alpha=0)")
    assert chosen.weights(rows @ rows.T).tolist() == [1.0] * 4
    promised = {claim.name for claim in chosen.claims if claim.holds(2, 2, chosen.options)}
    assert "non-conflicting" not in promised


@pytest.mark.parametrize("alpha", [1e-2, 1e-3, 1e-4, 1e-5])
def test_fairgrad_with_a_small_alpha_is_near_its_limit(alpha):
    """As alpha tends to 0: the projection of the sum. Norms span twelve decades."""
    rng, chosen = np.random.default_rng(13), gs.get_strategy("fairgrad", alpha=alpha)
    for k in range(24):
        rows = (
            rng.standard_normal((2 + k % 3, 5))
            * 10.0 ** rng.uniform(-2, 2)
            * 10.0 ** (4 * (k % 3) - 4)
        )
        if k % 2:  # they conflict
            rows[1] = 0.5 * rows[1] - rows[0]
        gram = rows @ rows.T
        weights = chosen.weights(gram)
        limit = solvers.project_dual_cone(gram, np.ones(len(rows))).value
        assert weights == pytest.approx(limit, rel=60 * alpha)
        scale = np.sqrt(np.diagonal(gram))
        gap = gram @ weights - np.exp(-np.log(weights) / alpha)
        assert np.abs(gap / scale).max() <= 1e-8 * float(weights @ scale)
    assert chosen.weights(np.zeros((2, 2))).tolist() == [0, 0]
    assert chosen.weights([[1.0, -1], [-1, 1]]).tolist() == [0, 0]


@pytest.mark.parametrize("alpha", [9e-6, 1e-9, 1e-300])
def test_fairgrad_refuses_an_alpha_that_cannot_be_computed(alpha):
    with pytest.raises(gs.InputError, match=r"give 1e-05 or more.*alpha=0\) is the sum"):
        gs.get_strategy("fairgrad", alpha=alpha).weights(np.eye(3))


def test_imtl_g_at_rank_n_minus_one_as_its_page_says():
    """The paper's formula gives zero there, ours a direction."""
    rows = np.random.default_rng(10).standard_normal((4, 3))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    differences, between = rows[0] - rows[1:], units[0] - units[1:]
    later = rows[0] @ between.T @ np.linalg.inv(differences @ between.T)
    paper = rows.T @ np.append(1 - later.sum(), later)
    assert np.abs(paper).max() < 1e-9
    assert np.linalg.norm(rows.T @ gs.get_strategy("imtl-g").weights(rows @ rows.T)) > 0.01
    assert "At rank n − 1" in gs.get_strategy("imtl-g").description


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("excess-mtl", "As in the official code and LibMTL's"),
        ("nash-mtl", "√‖G‖ times these"),
        ("sdmgrad", "The unit of `lr` is 1/mean(n₁ᵢn₂ᵢ)"),
        ("moco", "LibMTL's class has a softmax"),
        ("graddrop", "a shared representation"),
    ],
)
def test_the_page_of_a_strategy_says_where_other_code_differs(name, sentence):
    assert sentence in gs.contract.registry.registered(name).description


def test_nash_mtl_of_the_official_scale_is_longer_by_the_root_of_the_gram_norm():
    rows = np.random.default_rng(11).standard_normal((3, 5))
    gram = rows @ rows.T
    nash = gs.get_strategy("nash-mtl")
    size = np.linalg.norm(gram)
    assert nash.weights(gram / size) == pytest.approx(nash.weights(gram) * math.sqrt(size))

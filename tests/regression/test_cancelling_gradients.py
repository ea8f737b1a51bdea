"""Where rounding, a zero or a huge number decides: projections, losses of zero, learned weights."""

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery import solvers
from gradsurgery.testing import ConformanceError, check_strategy, samples


def cancelling(rng, n, k, spread=0.0):
    """Rows in float32, in any order, of which k cancel up to its rounding; norms over 10^spread."""
    rows = rng.standard_normal((n, 2 * n + 3)).astype(np.float32)
    shares = rng.uniform(0.2, 5, k - 1).astype(np.float32)
    rows[k - 1] = -(shares[:, None] * rows[: k - 1]).sum(0)
    rows *= 10 ** rng.uniform(0, spread, (n, 1)).astype(np.float32)
    return rows[rng.permutation(n)].astype(np.float64)


SIZES = [(3, 2), (4, 2), (5, 3), (6, 4), (12, 4), (32, 3)]


@pytest.mark.parametrize("spread", [0, 6])
@pytest.mark.parametrize("name", ["dualproj", "upgrad"])
def test_a_projection_is_no_longer_than_what_it_projects_where_gradients_cancel(name, spread):
    rng, chosen = np.random.default_rng([1, spread]), gs.get_strategy(name)
    solve = solvers.project_dual_cone if name == "dualproj" else solvers.project_each
    for n, k in SIZES:
        for _ in range(8):
            rows = cancelling(rng, n, k, spread)
            norms = np.linalg.norm(rows, axis=1)
            longest = np.linalg.norm(rows.mean(0)) if name == "dualproj" else norms.mean()
            for gram in (rows @ rows.T, (rows @ rows.T).astype(np.float32)):
                weights = chosen.weights(gram)
                d = rows.T @ weights
                assert np.linalg.norm(d) <= longest * (1 + 1e-6)
                least = (rows @ d / norms).min() / (abs(weights) @ norms)
                assert least >= (-1e-5 if gram.dtype == np.float32 else -1e-10)
                assert solve(gram).converged


@pytest.mark.parametrize("name", ["dualproj", "upgrad", "cagrad(c=1.0)"])
def test_the_order_of_the_losses_does_not_decide_where_gradients_cancel(name):
    rng, chosen = np.random.default_rng(2), gs.get_strategy(name)
    for n, k in SIZES:
        for _ in range(8):
            rows, order = cancelling(rng, n, k, 3), rng.permutation(n)
            d = rows.T @ chosen.weights(rows @ rows.T)
            other = rows[order].T @ chosen.weights(rows[order] @ rows[order].T)
            assert np.linalg.norm(d - other) <= 1e-7 * np.linalg.norm(rows, axis=1).mean()


def test_torch_gradients_in_float32_are_projected_as_they_are():
    rng = np.random.default_rng(3)
    for _ in range(100):
        rows = torch.from_numpy(cancelling(rng, 3, 2)).float()
        d = gs.get_strategy("dualproj")(rows)
        assert d.norm() <= rows.mean(0).norm() * (1 + 1e-5)


def test_well_posed_projections_are_what_they_were():
    """The definition, by non-negative least squares on the rows themselves."""
    from scipy.optimize import nnls

    rng = np.random.default_rng(4)
    for n in (2, 3, 5, 8, 20):
        for bend in (1.0, 1e-2, 1e-4):  # the last is handled as one that may be flat
            rows = rng.standard_normal((n, 2 * n))
            rows[-1] = -rows[:-1].sum(0) + bend * rows[-1]
            allowed = 1e-10 if bend > 1e-3 else 1e-7
            norms = np.linalg.norm(rows, axis=1)
            units, start = rows / norms[:, None], norms / n
            expected = units.T @ (start + nnls(units.T, -(units.T @ start), maxiter=1000)[0])
            found = rows.T @ solvers.project_dual_cone(rows @ rows.T).value
            assert np.linalg.norm(found - expected) <= allowed * norms.mean()
            each = [u + nnls(units.T, -u, maxiter=1000)[0] @ units for u in units]
            expected = sum(p * length for p, length in zip(each, start, strict=True))
            found = rows.T @ solvers.project_each(rows @ rows.T).value
            assert np.linalg.norm(found - expected) <= allowed * norms.mean()


def exact_projection(rows, start):
    """Jᵀv by enumeration of the active sets, in rational numbers."""
    exact = [[Fraction(float(x)) for x in row] for row in rows]
    scaled = [[Fraction(float(u)) * x for x in r] for u, r in zip(start, exact, strict=True)]
    d = [sum(column) for column in zip(*scaled, strict=True)]

    def along(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    subsets = [itertools.combinations(exact, k) for k in range(len(exact) + 1)]
    for active in itertools.chain(*subsets):
        basis, found = [], d  # Gram-Schmidt: the part of d orthogonal to the active rows
        for row in active:
            for b in basis:
                row = [x - along(row, b) / along(b, b) * y for x, y in zip(row, b, strict=True)]
            basis.append(row)
            found = [
                x - along(found, row) / along(row, row) * y for x, y in zip(found, row, strict=True)
            ]
        # found − d = Σ zᵢgᵢ with z >= 0
        if all(along(found, row) >= 0 for row in exact) and all(
            along([x - y for x, y in zip(found, d, strict=True)], dual) >= 0
            for dual in duals(active, along)
        ):
            return np.array([float(x) for x in found])
    raise AssertionError("no active set fits")


def duals(active, along):
    """Of each active row the part orthogonal to the others: its product with Σ zᵢgᵢ has the sign of zᵢ."""
    for k, row in enumerate(active):
        basis = []
        for other in [*active[:k], *active[k + 1 :], row]:
            for b in basis:
                other = [
                    x - along(other, b) / along(b, b) * y for x, y in zip(other, b, strict=True)
                ]
            basis.append(other)
        yield basis[-1]


SPREADS = [(1e-3, 2e-8), (1e-4, 3e-6), (3e-5, 1e-4), (1e-5, 1e-3)]


@pytest.mark.parametrize(("spread", "allowed"), SPREADS)
def test_a_projection_that_float64_determines_is_exact(spread, allowed):
    """What is allowed is about ten times what the rounding of the Gram matrix alone brings."""
    bend = 3 * spread
    planned = np.array([[1.0, 0, 0], [-3, bend, 0], [0.2, -1, 0.5]])
    rng, cases = np.random.default_rng(12), [planned]
    for _ in range(12):
        rows = rng.standard_normal((3, 6))
        rows[1] = -rng.uniform(0.3, 3) * (rows[0] + spread * rng.standard_normal(6))
        cases.append(rows)
    for rows in cases:
        expected = exact_projection(rows, [1 / 3] * 3)
        found = solvers.project_dual_cone(rows @ rows.T)
        assert found.converged
        assert np.linalg.norm(rows.T @ found.value - expected) <= allowed * np.linalg.norm(expected)
        expected = sum(exact_projection(rows, u) for u in np.eye(3) / 3)
        found = solvers.project_each(rows @ rows.T)
        assert found.converged
        assert np.linalg.norm(rows.T @ found.value - expected) <= allowed * np.linalg.norm(expected)


def test_a_projection_without_bounds_fails_the_conformance_checks():
    from scipy.optimize import nnls

    from gradsurgery.contract.registry import _registry

    @gs.strategy("test-unbounded", paper="none", scale="mean", claims=("projection",))
    def unbounded(gram):
        norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        root = solvers.factor(gram / norms / norms[:, None])
        start = norms / len(norms)
        return (start + nnls(root, -root @ start, maxiter=10_000)[0]) / norms

    try:
        with pytest.raises(ConformanceError, match="times longer than the mean gradient"):
            check_strategy("test-unbounded")
    finally:
        del _registry["test-unbounded"]
    assert any(s.kind == "cancelling in float32" for s in samples(20))


def cancelling_units():
    """Unit gradients that sum to zero."""
    angles = np.deg2rad([90, 210, 330])
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    simplex = np.eye(6) - 1 / 6
    return {
        "two against two": np.array([[1.0, 2], [1, 2], [-1, -2], [-1, -2]]) / math.sqrt(5),
        "120°": np.stack([np.cos(angles), np.sin(angles)], 1),
        "tetrahedron": tetrahedron,
        "simplex": simplex / np.linalg.norm(simplex, axis=1, keepdims=True),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["config", "imtl-g"])
@pytest.mark.parametrize("case", cancelling_units())
def test_no_direction_is_made_of_rounding_where_unit_gradients_cancel(case, name, dtype):
    rng, units, chosen = np.random.default_rng(5), cancelling_units()[case], gs.get_strategy(name)
    n, k = units.shape
    for _ in range(20):
        turned = units @ np.linalg.qr(rng.standard_normal((9, k)))[0].T
        norms = 10 ** rng.uniform(-2, 2) * 10 ** rng.uniform(-1, 1, n)
        rows = (turned * norms[:, None]).astype(dtype).astype(np.float64)[rng.permutation(n)]
        assert np.abs(rows.T @ chosen.weights(rows @ rows.T)).max() <= 1e-12 * norms.max()
    # but what is bent by more than rounding has its direction
    rows = turned + 1e-3 * rng.standard_normal(turned.shape)
    assert np.linalg.norm(rows.T @ chosen.weights(rows @ rows.T)) > 0


def test_config_with_a_preference_that_cancels():
    rows = np.array([[1.0, 0.2], [0.3, 1.0], [0, 0]])
    rows[2] = -(2 * rows[0] / np.linalg.norm(rows[0]) + rows[1] / np.linalg.norm(rows[1])) / 3
    wanted = (2.0, 1.0, 3 * np.linalg.norm(rows[2]))
    weights = gs.get_strategy("config", preference=wanted).weights(rows @ rows.T)
    assert np.abs(rows.T @ weights).max() <= 1e-12


def test_pcd_follows_the_primary_where_secondaries_contradict_up_to_rounding():
    rng, pcd = np.random.default_rng(6), gs.get_strategy("pcd")
    for n in (3, 4, 6):
        for _ in range(60):
            rows = rng.standard_normal((n, 9)).astype(np.float32)
            rows[2] = np.float32(-rng.uniform(0.2, 3)) * rows[1]
            rows = rows.astype(np.float64)
            found = rows.T @ pcd.weights(rows @ rows.T, state=gs.State())
            assert found == pytest.approx(rows[0], abs=1e-12)


def test_pbi_takes_no_direction_from_the_rounding_of_losses():
    pbi = gs.get_strategy("pbi", preference=[1.0, 3.0])
    unit = np.array([1.0, 3.0]) / math.sqrt(10)
    for loss in (0.1, 0.7, 1.3):
        losses = [float(np.float32(loss)), float(np.float32(3 * loss))]
        assert pbi.weights(np.eye(2), losses=losses) == pytest.approx(unit)
    assert pbi.weights(np.eye(2), losses=[1.0, 3.001]) != pytest.approx(unit)


def hinges(model, x, zero):
    """Two losses; the second is exactly zero where asked for."""
    margin = model(x)
    hinge = torch.relu(margin - (1e3 if zero else -5)).mean()
    return {"ce": margin.pow(2).mean() + 0.1, "hinge": hinge}


GO_ON = ["famo", "dwa(window=1)", "dwa", "moco", "gradnorm", "db-mtl", "stch(window=2)", "stch"]
REFUSE = ["gls", "mgda(normalize='loss')", "mgda(normalize='loss+')", "gradnorm"]


@pytest.mark.filterwarnings("ignore:.*hinge. is at its minimum")
@pytest.mark.parametrize("name", GO_ON)
def test_a_loss_of_exactly_zero_does_not_end_the_training(name):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(3, 1), torch.randn(8, 3)
    surgery = gs.Surgery(name, model)
    for zero in (False, True, True, False, True, True, True, False, False):
        model.zero_grad()
        losses = hinges(model, x, zero)
        assert (losses["hinge"].item() == 0) == zero
        surgery.backward(losses)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore:.*hinge. is at its minimum")
@pytest.mark.parametrize("name", ["famo", "dwa", "moco", "db-mtl", "stch"])
def test_a_first_loss_of_exactly_zero_passes_where_the_formula_is_defined(name):
    model, x = torch.nn.Linear(3, 1), torch.ones(8, 3)
    surgery = gs.Surgery(name, model)
    for _ in range(3):
        surgery.backward(hinges(model, x, True))
    assert torch.isfinite(model.weight.grad).all()


def test_famo_goes_on_as_its_official_code_does():
    losses = np.array([0.5, 0.0])
    with pytest.warns(UserWarning, match=r"loss '1' is at its minimum.*leave it out"):
        weights = gs.get_strategy("famo").weights(np.eye(2), losses=losses, state=gs.State())
    expected = 0.5 / (losses + 1e-8)
    assert weights == pytest.approx(expected / expected.sum(), rel=1e-9)


@pytest.mark.parametrize("name", REFUSE)
def test_a_loss_of_zero_is_refused_by_name_where_the_formula_divides_by_it(name):
    model, x = torch.nn.Linear(3, 1), torch.ones(8, 3)
    with pytest.raises(gs.InputError, match="'hinge'"):
        gs.Surgery(name, model).backward(hinges(model, x, True))
    assert model.weight.grad is None


def test_dwa_knows_no_rate_after_a_mean_of_zero():
    dwa, state = gs.get_strategy("dwa", window=1), gs.State()
    for losses in ([1.0, 0.0], [0.5, 2.0]):
        dwa.weights(np.eye(2), losses=losses, state=state)
    powers = np.exp(np.array([0.5, 1.0]) / 2)
    weights = dwa.weights(np.eye(2), losses=[1.0, 1.0], state=state)
    assert weights == pytest.approx(2 * powers / powers.sum())


HUGE = [5e-3, 0.6, 4e4]


LEVELS = [("uw", 0.5), ("imtl-l", 1.0), ("uw(lr=0.5)", 0.5), ("imtl-l(lr=0.1)", 1.0)]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_large_loss_is_weighed_not_switched_off(name, level):
    chosen, state = gs.get_strategy(name), gs.State()
    for k in range(1500):
        weights = chosen.weights(np.eye(3), losses=HUGE, state=state)
        assert weights[2] * HUGE[2] > level / 3, f"step {k}"
    assert weights[2] * HUGE[2] < 2 * level
    # one outlier costs a factor of e
    outlier = [5e-3, 0.6 * 1e9, 4e4]
    before = chosen.weights(np.eye(3), losses=outlier, state=state)
    after = chosen.weights(np.eye(3), losses=HUGE, state=state)
    assert after[1] == pytest.approx(before[1] / math.e)


@pytest.mark.parametrize("name", ["uw", "imtl-l"])
def test_a_weight_that_has_sunk_to_nothing_is_warned_of(name):
    """A state as it was saved before steps were bounded."""
    logs = {"uw": ("log variance", 50.0), "imtl-l": ("s", -50.0)}[name]
    entries = ((("0",), 0.0), (("1",), logs[1]))
    state = gs.State.from_state_dict({"numbers": {logs[0]: entries}, "tensors": {}})
    with pytest.warns(UserWarning, match=f"'{name}': the weight of '1' is .* takes no part"):
        gs.get_strategy(name).weights(np.eye(2), losses=[1.0, 4e4], state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for losses in ([1e-12, 1.0], [0.0, 1.0], [1e12, 1.0], [-1.0, 1.0]):
            state = gs.State()
            for _ in range(40):
                gs.get_strategy(name).weights(np.eye(2), losses=losses, state=state)


def test_no_gradient_is_lost_for_good_by_excess_mtl():
    """After a first gradient that was tiny every later one counts as huge; the other one returns."""
    excess, state = gs.get_strategy("excess-mtl"), gs.State()
    excess(torch.tensor([[1e-6, 0.0], [0.0, 1.0]]), state=state)
    for _ in range(3):
        excess(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), state=state)
    for _ in range(200):
        d = excess(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), state=state)
    assert d[1] > 1
    # one whose first gradient is zero begins with the first that is not
    state = gs.State()
    for first in (0.0, 0.0, 1.0):
        d = excess(torch.tensor([[first, 0.0], [0.0, 1.0]]), state=state)
    d = excess(torch.tensor([[9.0, 0.0], [0.0, 1.0]]), state=state)
    assert d[0] / 9 > 1.5


def test_gradnorm_by_gradient_descent_moves_a_weight_by_one_at_most():
    gradnorm, state = gs.get_strategy("gradnorm", optimizer="sgd"), gs.State()
    gram = np.diag([1.0, 1.0, 1e12])
    weights = [gradnorm.weights(gram, losses=[1.0] * 3, state=state) for _ in range(200)]
    assert min(w[:2].min() for w in weights) > 0.5


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

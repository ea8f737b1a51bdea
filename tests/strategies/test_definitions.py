"""Every strategy against its definition written out apart, its closed forms for two objectives, and its claims under fire."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from models import Tree, TwoEncoders
from zoo import SHIPPED, direction, plain, ready, step

import gradsurgery as gs
from gradsurgery.contract.registry import registered

STATEFUL = [name for name in SHIPPED if "state" in registered(name).inputs]


def pairs(count=100, seed=0, dimension=4):
    """Two rows with lengths from 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.normal(size=(2, dimension)) * 10.0 ** rng.uniform(-6, 6, (2, 1))


def cosine(rows):
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(units[0] @ units[1])


def d(name, rows, **options):
    inputs = {
        k: options.pop(k) for k in ("losses", "state", "observed", "scores", "step") if k in options
    }
    return direction(
        gs.get_strategy(name, **options),
        torch.as_tensor(np.asarray(rows, dtype=np.float64)),
        **inputs,
    ).numpy()


def close(found, expected, tolerance=1e-8):
    return np.linalg.norm(found - expected) <= tolerance * max(
        np.linalg.norm(expected), np.linalg.norm(found)
    )


# ---- closed forms for two objectives


def test_closed_forms_for_two_objectives():
    for rows in pairs():
        norms = np.linalg.norm(rows, axis=1)
        c = cosine(rows)
        units = rows / norms[:, None]
        assert close(d("nash-mtl", rows), units.sum(0) / np.sqrt(1 + c))
        assert np.linalg.norm(d("nash-mtl", rows)) == pytest.approx(np.sqrt(2), rel=1e-8)
        assert close(d("fairgrad", rows, alpha=1.0), d("nash-mtl", rows))
        assert close(d("imtl-g", rows), (norms[1] * rows[0] + norms[0] * rows[1]) / norms.sum())
        assert close(d("upgrad", rows), d("pcgrad", rows) / 2)
        assert close(d("gradvac", rows), d("pcgrad", rows))
        target = units.sum(0) / np.linalg.norm(units.sum(0))
        assert close(d("config", rows), (rows @ target).sum() * target)
        mean = rows.mean(0)
        hurt = [i for i in (0, 1) if rows[i] @ mean < 0]
        expected = (
            mean
            if not hurt
            else mean - (rows[hurt[0]] @ mean) / norms[hurt[0]] ** 2 * rows[hurt[0]]
        )
        assert close(d("dualproj", rows), expected, 1e-7)
        other = rows[1] - min(0.0, rows[0] @ rows[1]) / norms[0] ** 2 * rows[0]
        assert close(d("a-gem", rows, objective="0"), other)
        assert close(d("cagrad", rows, c=0.0), mean)
        values, left = np.linalg.eigh(rows @ rows.T / norms.max() ** 2)
        if norms.max() / norms.min() < 1e3 and abs(c) < 0.999:
            aligned = left @ np.diag(np.sqrt(values.min() / values)) @ left.T @ np.full(2, 0.5)
            assert close(d("aligned-mtl", rows), rows.T @ aligned, 1e-6)


def test_aligned_mtl_has_equal_singular_values_whatever_the_norms():
    rng = np.random.default_rng(3)
    for spread in (0, 2, 4, 6):
        for _ in range(10):
            rows = rng.normal(size=(4, 9)) * 10.0 ** rng.uniform(0, spread, (4, 1))
            columns = np.stack(
                [
                    gs.get_strategy("aligned-mtl", preference=row.tolist()).weights(rows @ rows.T)
                    for row in np.eye(4)
                ],
                1,
            )
            values = np.linalg.svd(rows.T @ columns)[1]
            assert values == pytest.approx(
                np.full(4, values.mean()), rel=1e-6
            )  # the balanced matrix is perfectly conditioned
            assert values.mean() == pytest.approx(np.linalg.svd(rows)[1].min(), rel=1e-6)


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


def test_imtl_g_has_equal_projections():
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = rng.normal(size=(5, 8)) * 10.0 ** rng.uniform(-3, 3, (5, 1))
        weights = gs.get_strategy("imtl-g").weights(rows @ rows.T)
        along = rows @ (rows.T @ weights) / np.linalg.norm(rows, axis=1)
        assert weights.sum() == pytest.approx(1)
        assert along == pytest.approx(np.full(5, along[0]), rel=1e-6)


def test_upgrad_and_dualproj_preferences():
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows, preference = rng.normal(size=(3, 3)), rng.uniform(0.1, 1, 3)
        gram = rows @ rows.T
        expected = sum(
            gs.solvers.project_dual_cone(gram, p * e).value
            for p, e in zip(preference, np.eye(3), strict=True)
        )
        assert close(d("upgrad", rows, preference=preference.tolist()), rows.T @ expected)
        assert close(
            d("dualproj", rows, preference=preference.tolist()),
            rows.T @ gs.solvers.project_dual_cone(gram, preference).value,
        )
    with pytest.raises(gs.InputError, match="preference is positive"):
        d("upgrad", np.eye(2), preference=[1.0, 0.0])


def test_config_is_its_pseudo_inverse():
    rng = np.random.default_rng(4)
    for n, dimension in ((3, 7), (5, 5), (4, 2)):
        for _ in range(20):
            rows = rng.normal(size=(n, dimension)) * 10.0 ** rng.uniform(-3, 3, (n, 1))
            units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            x = np.linalg.pinv(units) @ np.ones(n)
            x /= np.linalg.norm(x)
            assert close(d("config", rows), (rows @ x).sum() * x, 1e-6)


def test_krum_is_its_definition():
    rng = np.random.default_rng(5)
    for byzantine, selected in itertools.product((0, 1, 2), (1, 2)):
        rows = rng.normal(size=(6, 3))
        distances = ((rows[:, None] - rows[None]) ** 2).sum(-1)
        scores = [np.sort(np.delete(distances[i], i))[: 6 - byzantine - 2].sum() for i in range(6)]
        expected = rows[np.argsort(scores)[:selected]].mean(0)
        assert close(d("krum", rows, byzantine=byzantine, selected=selected), expected)
    with pytest.raises(gs.InputError, match=r"byzantine \+ 3 = 4 objectives or more; got 3"):
        d("krum", np.eye(3))


def test_pcd_meets_its_constraints_and_keeps_the_primary_length():
    rng = np.random.default_rng(6)
    met = 0
    for _ in range(60):
        rows = rng.normal(size=(4, 5)) * 10.0 ** rng.uniform(-3, 3, (4, 1))
        found = d("pcd", rows, tau=0.05)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(rows[0]), rel=1e-6)
        solution = gs.solvers.nearest_above(
            units @ units.T, [1.0, 0, 0, 0], [-np.inf, 0.05, 0.05, 0.05]
        )
        if not solution.converged:
            assert close(found, rows[0])
            continue
        met += 1
        before = units.T @ solution.value
        assert (units[1:] @ before).min() >= 0.05 - 1e-9
        assert close(found, before / np.linalg.norm(before) * np.linalg.norm(rows[0]))
    assert met > 40
    assert close(d("pcd", [[1.0, 0], [0, 1], [0, -1]]), np.array([1.0, 0]))  # contradictory
    assert d("pcd", np.eye(2), primary="elsewhere").tolist() == [
        1.0,
        1.0,
    ]  # on a group that the primary objective does not reach


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


def test_coordinate_wise_definitions():
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(5, 200_000)).astype(np.float32)
    rows[:, :10] = 0
    ordered = np.sort(rows, axis=0)
    for trim in (0, 1, 2):
        assert np.allclose(
            direction(gs.get_strategy("trimmed-mean", trim=trim), torch.as_tensor(rows)).numpy(),
            ordered[trim : 5 - trim].mean(0),
            atol=1e-6,
        )
    with pytest.raises(gs.InputError, match="more than 2 objectives; got 2"):
        d("trimmed-mean", np.eye(2))
    leak = [0.0, 0.1, 0.2, 0.3, 0.4]
    chance = 0.5 * (1 + rows.sum(0) / np.maximum(np.abs(rows).sum(0), 1e-30))
    for given, shares in ((0.0, np.zeros(5)), (leak, np.array(leak))):
        total = np.zeros(rows.shape[1])
        for k in range(40):
            found = direction(
                gs.get_strategy("graddrop", leak=given), torch.as_tensor(rows), step=k
            ).numpy()
            positive = np.where(rows > 0, rows, shares[:, None] * rows).sum(0)
            negative = np.where(rows < 0, rows, shares[:, None] * rows).sum(0)
            assert (
                np.isclose(found, positive, atol=1e-5) | np.isclose(found, negative, atol=1e-5)
            ).all()
            total += found
        expected = chance * positive + (1 - chance) * negative
        error = (total / 40 - expected) / (np.abs(positive - negative) + 1e-6)
        assert abs(error.mean()) < 1e-3
        assert error.std() < 0.09  # a coin of 40 throws: at most 0.079


# ---- weights from losses are the gradient of what the strategy says it descends

SCALARS = {
    "gls": ({}, lambda x: x.log().mean().exp()),
    "stch(window=0, mu=0.3)": ({}, lambda x: 0.3 * torch.logsumexp(x / len(x) / 0.3, 0)),
    "stch(window=0, preference=[0.5, 2.0, 1.0], ideal=0.1)": ({}, lambda x: torch.logsumexp(torch.tensor([0.5, 2.0, 1.0]) * (x - 0.1), 0)),
    "cosmos": ({}, lambda x: x.mean() - 2 * torch.cosine_similarity(x, torch.ones_like(x), dim=0)),
    "cosmos(preference=[1.0, 2.0, 3.0], lam=0.5)": (
        {}, lambda x: x @ torch.tensor([1.0, 2, 3]).to(x) - 0.5 * torch.cosine_similarity(x, torch.tensor([1.0, 2, 3]).to(x), dim=0),
    ),
    "pbi": ({}, lambda x: x.sum() / 3**0.5 + 5 * (x - x.mean()).norm()),
    "uw": ({}, lambda x: 0.5 * x.sum()),
    "imtl-l": ({}, lambda x: x.sum()),
    "stch": ({}, lambda x: x.log().sum()),
    "famo": ({}, lambda x: (1 / (1 / x.detach()).sum()) * (x + 1e-8).log().sum()),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_weights_are_the_gradient_of_the_scalarisation(name):
    _, scalar = SCALARS[name]
    rng = np.random.default_rng(13)
    for _ in range(20):
        losses = torch.tensor(rng.uniform(0.2, 3, 3), requires_grad=True)
        expected = torch.autograd.grad(scalar(losses), losses)[0].numpy()
        chosen = gs.get_strategy(name)
        extra = {"state": gs.State()} if "state" in chosen.inputs else {}
        assert chosen.weights(np.eye(3), losses=losses.tolist(), **extra) == pytest.approx(
            expected, rel=1e-6, abs=1e-9
        )


def test_learned_scales_follow_their_losses():
    """uw and imtl-l against the same quantities learned by torch."""
    for name, scalar in (
        ("uw", lambda s, x: (0.5 * ((-s).exp() * x + s)).sum()),
        ("imtl-l", lambda s, x: (s.exp() * x - s).sum()),
    ):
        for optimizer, made in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
            chosen, state = gs.get_strategy(name, lr=0.05, optimizer=optimizer), gs.State()
            logs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
            own = made([logs], lr=0.05)
            for k in range(10):
                x = torch.tensor(np.random.default_rng(k).uniform(0.5, 3, 3), requires_grad=True)
                loss = scalar(logs, x)
                own.zero_grad()
                loss.backward()
                assert chosen.weights(np.eye(3), losses=x.tolist(), state=state) == pytest.approx(
                    x.grad.numpy(), rel=1e-9
                )
                own.step()


def test_dwa_and_stch_windows():
    rng = np.random.default_rng(14)
    chosen, state = gs.get_strategy("dwa", window=5, temperature=1.5), gs.State()
    seen = rng.uniform(0.5, 2, (25, 3))
    for k, losses in enumerate(seen):
        weights = chosen.weights(np.eye(3), losses=losses, state=state)
        block = k // 5
        rate = (
            np.ones(3)
            if block < 2
            else seen[5 * block - 5 : 5 * block].mean(0)
            / seen[5 * block - 10 : 5 * block - 5].mean(0)
        )
        assert weights == pytest.approx(3 * np.exp(rate / 1.5) / np.exp(rate / 1.5).sum())
    chosen, state = gs.get_strategy("stch", window=4, mu=0.7), gs.State()
    for k, losses in enumerate(seen):
        weights = chosen.weights(np.eye(3), losses=losses, state=state)
        if k < 4:
            assert weights == pytest.approx(1 / losses)
        else:
            powers = (losses / seen[:4].mean(0)) ** (1 / 0.7)
            assert weights == pytest.approx(3 * powers / powers.sum() / losses)


@pytest.mark.parametrize(
    "name",
    [
        "gls",
        "mgda(normalize='loss')",
        "mgda(normalize='loss+')",
        "stch",
        "dwa",
        "db-mtl",
        "moco",
        "famo",
        "gradnorm",
    ],
)
def test_losses_that_have_to_be_positive(name):
    model = TwoEncoders()
    losses = model.losses()
    losses["audio"] = losses["audio"] - 100.0
    with pytest.raises(gs.InputError, match="'audio' is -9"):
        gs.Surgery(name, model).backward(losses)
    assert all(p.grad is None for p in model.parameters())


# ---- the claims under fire


@pytest.mark.parametrize(
    "name",
    [
        "mgda",
        "upgrad",
        "dualproj",
        "nash-mtl",
        "fairgrad",
        "cagrad(c=1)",
        "mmpareto",
        "config",
        "mgda(normalize='l2')",
    ],
)
@pytest.mark.parametrize("sigma", [0.5, 1, 2, 3])
def test_no_conflict_on_rows_in_conflict_with_log_normal_norms(name, sigma):
    """60 draws: six rows that pull against each other in ten dimensions, with log-normal lengths; in both precisions."""
    chosen = gs.get_strategy(name)
    rng = np.random.default_rng(int(10 * sigma))
    conflicts = 0
    for _ in range(60):
        rows = rng.normal(size=(6, 10))
        rows = (rows - 0.9 * rows.mean(0)) * np.exp(sigma * rng.normal(size=(6, 1)))
        cosines = (rows @ rows.T) / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
        assert cosines.min() < -0.1
        for dtype in (torch.float64, torch.float32):
            given = torch.as_tensor(rows).to(dtype)
            found = direction(chosen, given).double().numpy()
            exact = given.double().numpy()
            worst = (exact @ found / np.linalg.norm(exact, axis=1) / np.linalg.norm(found)).min()
            conflicts += worst < -1e-6
    assert conflicts == 0


# ---- state

RESUME = """
import sys, torch
sys.path.insert(0, {tests!r})
import gradsurgery as gs
from models import Tree
from zoo import ready, step, plain
name, saved, out = sys.argv[1:]
model = Tree()
checkpoint = torch.load(saved, weights_only=True)
model.load_state_dict(checkpoint["model"])
surgery = gs.Surgery(ready(name, "a"), model, seed=5)
surgery.load_state_dict(checkpoint["surgery"])
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for k in range(10, 14):
    optimizer.zero_grad()
    step(surgery, losses_of(model, k), lambda: losses_of(model, k + 100))
    optimizer.step()
torch.save([model.state_dict(), surgery.state_dict()], out)
"""
LOSSES = """
def losses_of(model, k):
    return {name: loss + 0.1 for name, loss in model.losses(k).items()}
"""


def losses_of(model, k):
    return {name: loss + 0.1 for name, loss in model.losses(k).items()}


@pytest.mark.parametrize("name", [*STATEFUL, "pcgrad", "random", "graddrop"])
def test_saved_at_step_ten_and_resumed_in_a_new_process_it_goes_on_bit_for_bit(name, tmp_path):
    import pathlib

    model = Tree()
    surgery = gs.Surgery(ready(name, "a"), model, seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for k in range(14):
        if k == 10:
            torch.save(
                {"model": model.state_dict(), "surgery": surgery.state_dict()},
                tmp_path / "saved.pt",
            )
        optimizer.zero_grad()
        step(surgery, losses_of(model, k), lambda k=k: losses_of(model, k + 100))
        optimizer.step()
    script = LOSSES + RESUME.format(tests=str(pathlib.Path(__file__).parent))
    subprocess.run(
        [sys.executable, "-c", script, name, str(tmp_path / "saved.pt"), str(tmp_path / "out.pt")],
        check=True,
    )
    weights, state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert plain(state) == plain(surgery.state_dict())


@pytest.mark.parametrize("name", [n for n in STATEFUL if registered(n).acts_on == "group"])
def test_two_groups_never_share_state(name):
    """The step of one encoder is the same whether the other one is trained too or not."""
    outcomes = []
    for groups in (("audio",), ("audio", "visual")):
        model = TwoEncoders()
        surgery = gs.Surgery(
            ready(name, "fused"), {g: getattr(model, g) for g in groups}, others="ignore"
        )
        for k in range(3):
            model.zero_grad()
            step(surgery, model.losses(k), lambda k=k, model=model: model.losses(k + 50))
        outcomes.append([p.grad.clone() for p in model.audio.parameters()])
        assert len(surgery.state_dict()["groups"]) == len(groups)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_every_name_of_the_field_is_there():
    assert len(SHIPPED) == 40
    assert all(registered(name).paper and registered(name).claims for name in SHIPPED)

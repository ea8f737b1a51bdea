"""Directions brought to the length of the sum of the gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradsurgery as gs
from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.length import as_long_as_the_sum
from gradsurgery.solvers import without_conflict
from tests.support.models import TwoEncoders, by_loss, flat, grads
from tests.support.shipped import LEAST, SHIPPED, ready, step

WEIGHTS = {"fused": 1.0, "audio": 5.0, "visual": 0.3}
WITHOUT_DIRECTION = set(LEAST)  # of two objectives
SCORED = {"audio": 2.0, "visual": 1.0, "audio+fused": 2.0, "fused+visual": 1.0}


def encoders(model):
    return {"audio+fused": model.audio, "fused+visual": model.visual}


def sum_of(model, part, seed=0, weights=WEIGHTS):
    """The sum of the weighted gradients by one autograd pass per loss, flattened."""
    losses = {name: weights[name] * loss for name, loss in model.losses(seed).items()}
    return by_loss(losses, list(part.parameters())).sum(0)


def taken(name, seed=0, rows=None, **options):
    """A model after one step, and its Record."""
    model = TwoEncoders(seed)
    surgery = gs.Surgery(ready(name, "audio"), model, **options)
    return model, step(surgery, model.losses(seed), lambda: model.losses(seed), weights=WEIGHTS)


@pytest.mark.parametrize("name", [n for n in SHIPPED if n not in WITHOUT_DIRECTION])
def test_every_direction_has_the_length_of_the_sum_and_its_own_direction(name):
    (model, record), (own, _) = taken(name, length="sum"), taken(name)
    for title, part in encoders(model).items():
        found = flat([p.grad for p in part.parameters()])
        usual = flat([p.grad for p in encoders(own)[title].parameters()])
        size = sum_of(model, part).norm().item()
        if usual.norm() == 0:
            assert found.norm() == 0
            continue
        assert found.norm().item() == pytest.approx(size, rel=1e-9)
        assert torch.allclose(found, usual * (size / usual.norm()), rtol=1e-9, atol=1e-12 * size)
        if record[title].weights is not None and record[title].weights.ndim == 1:
            applied = torch.as_tensor(record[title].weights) @ by_loss(
                {n: WEIGHTS[n] * model.losses()[n] for n in record[title].objectives},
                list(part.parameters()),
            )
            assert torch.allclose(applied, found, rtol=1e-9, atol=1e-12 * size)
    before, after = grads(own), grads(model)
    for key in (k for k in before if k.split(".")[0] not in ("audio", "visual")):
        assert before[key] is None or torch.allclose(before[key], after[key], rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_length_comes_after_protection(seed):
    model, record = taken("sum", seed, protect="audio", length="sum")
    group = record["audio+fused"]
    protected = without_conflict(np.ones(2), group.gram, group.objectives.index("audio"))
    size = np.sqrt(protected @ group.gram @ protected)
    assert np.allclose(group.weights, protected * np.sqrt(group.gram.sum()) / size, rtol=1e-12)
    found = flat([p.grad for p in model.audio.parameters()])
    rows = by_loss(model.losses(seed), list(model.audio.parameters()))
    assert found.norm().item() == pytest.approx(
        sum_of(model, model.audio, seed).norm().item(), rel=1e-9
    )
    assert rows[1] @ found >= -1e-12 * rows[1].norm() * found.norm()


def test_the_sum_is_the_sum_to_the_last_bit_and_costs_one_pass():
    model, record = taken("sum", length="sum")
    plain, _ = taken("sum")
    assert all(g is None or torch.equal(g, grads(plain)[n]) for n, g in grads(model).items())
    assert record["audio+fused"].gram is None
    model, record = taken("mean", length="sum")
    assert record["audio+fused"].weights.tolist() == [1.0, 1.0]
    assert record["audio+fused"].gram is not None  # its weights are 1/3: a pass per loss
    assert record["audio"].weights.tolist() == [1 / 3]  # one loss alone: as it was


def test_steps_between_use_the_weights_as_they_were_scaled():
    model = TwoEncoders()
    surgery = gs.Surgery("upgrad", model, every=3, length="sum")
    first = surgery.backward(model.losses())["fused+visual"]
    for seed in (1, 2):
        model.zero_grad()
        again = surgery.backward(model.losses(seed))["fused+visual"]
        assert again.replayed
        assert again.gram is None
        assert np.array_equal(again.weights, first.weights)
    surgery.accumulate(model.losses(3))
    assert not surgery.combine()["fused+visual"].replayed
    surgery.accumulate(model.losses(4))
    stored = surgery.combine()["fused+visual"]
    assert stored.replayed
    assert not np.array_equal(stored.weights, first.weights)


def test_weights_of_losses_that_are_used_again_get_the_length_of_each_step():
    model = TwoEncoders()
    surgery = gs.Surgery("dwa", model, every=2, length="sum")
    for seed in range(4):
        model.zero_grad()
        record = surgery.backward(model.losses(seed), weights=WEIGHTS)
        assert record["audio+fused"].replayed == (seed % 2 == 1)
        for part in (model.audio, model.visual):
            found = flat([p.grad for p in part.parameters()])
            assert found.norm().item() == pytest.approx(
                sum_of(model, part, seed).norm().item(), rel=1e-9
            )


def test_at_features_in_low_memory_and_under_a_scaler():
    torch.manual_seed(0)
    trunk, heads = torch.nn.Linear(4, 3), torch.nn.ModuleList(torch.nn.Linear(3, 1) for _ in "ab")
    model = torch.nn.ModuleList([trunk, heads]).double()
    z = trunk(torch.randn(5, 4, dtype=torch.float64)).tanh()
    losses = {n: (h(z) - i).pow(2).mean() for i, (n, h) in enumerate(zip("ab", heads, strict=True))}
    rows = by_loss(losses, [z])
    record = gs.backward(losses, model, "mgda", features=z, length="sum", retain_graph=True)
    at = torch.as_tensor(record["a+b"].weights) @ rows
    assert at.norm().item() == pytest.approx(rows.sum(0).norm().item(), rel=1e-9)
    (expected,) = torch.autograd.grad(z, [trunk.weight], at.view_as(z), retain_graph=True)
    assert torch.allclose(trunk.weight.grad, expected)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for call in ({"memory": "low"}, {"memory": "low", "method": "taps"}, {"scaler": scaler}):
        model.zero_grad()
        gs.backward(losses, model, "mgda", length="sum", retain_graph=True, **call)
        found = flat([p.grad for p in trunk.parameters()]) / (2**12 if "scaler" in call else 1)
        target = by_loss(losses, list(trunk.parameters())).sum(0).norm().item()
        assert found.norm().item() == pytest.approx(target, rel=1e-9)


def test_zero_stays_zero_and_what_is_not_finite_passes_where_it_is_let_through():
    weight = torch.nn.Parameter(torch.ones(2))
    for strategy in ("mgda", "upgrad", "nash-mtl", "graddrop"):
        weight.grad = None
        losses = {"a": weight.sum(), "b": -weight.sum()}
        gs.backward(losses, [weight], strategy, length="sum")
        assert weight.grad.tolist() == [0.0, 0.0]
    for strategy in ("mgda", "uw", "graddrop"):
        weight.grad = None
        losses = {"a": weight.sum(), "b": weight.sum() * float("nan")}
        gs.Surgery(strategy, [weight], length="sum", nonfinite="ignore").backward(losses)
        assert weight.grad.isnan().all()
    weight.grad = None
    losses = {"a": weight[0] * 2, "b": weight[1] * 3, "c": 0 * weight.sum()}
    gs.backward(losses, [weight], "mgda", length="sum", zero="absent")
    assert weight.grad.norm().item() == pytest.approx(13**0.5)


def test_one_objective_in_a_group_keeps_the_plain_gradient():
    weight = torch.nn.Parameter(torch.ones(2))
    gs.backward({"a": (weight * weight).sum()}, [weight], "nash-mtl", length="sum")
    assert weight.grad.tolist() == [2.0, 2.0]


def test_another_length_is_an_error():
    with pytest.raises(gs.InputError, match="unknown length 'mean'. .*Known: sum"):
        gs.Surgery("mgda", length="mean")


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 4),
    st.lists(st.sampled_from([-20, -7, 0, 7, 20]), min_size=4, max_size=4),
    st.sampled_from([0.0, 1e-3, 1e-9, 1.0]),
    st.booleans(),
)
def test_lengths_at_every_scale(seed, n, powers, apart, per_tensor):
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((1, 5)) * [[1], [-1], [1], [-1]] + apart * (
        generator.standard_normal((4, 5))
    )  # nearly dependent, duplicates where apart is 0
    rows = torch.as_tensor(rows[:n] * 10.0 ** np.array(powers[:n])[:, None])
    weights = generator.random((2, n)) * (generator.random((2, n)) < 0.8)
    asked = weights if per_tensor else weights[0] / 10.0 ** np.array(powers[:n])
    matrix = gs.GradientMatrix([[row[:2].clone(), row[2:].clone()] for row in rows])
    found = as_long_as_the_sum(Outcome(asked), matrix).weights
    direction, before = (
        torch.cat([d.reshape(-1) for d in matrix.combine(w)]) for w in (found, asked)
    )
    norms, target = rows.norm(dim=1).numpy(), rows.sum(0).norm().item()
    share = target / norms.sum()
    own = before.norm().item() / max(sum(np.atleast_2d(asked) @ norms), 1e-300)
    size = direction.norm().item()
    if min(share, own) < 1e-6:  # near rounding: the length of the sum, or zero
        assert size <= 1.2 * target + 1e-6 * norms.sum()
        return
    assert size == pytest.approx(target, rel=1e-14 / min(share, own) ** 2 + 1e-12)
    assert (before @ direction).item() == pytest.approx(before.norm().item() * size)

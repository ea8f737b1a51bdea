"""Surgery.step at its edges: scalers, failures, gradients that are not held, odd parameters."""

import contextlib
import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine import after_optimizer
from tests.engine.test_optimizer_step import Net, flat, gradients


def built(strategy="mgda", lr=0.05, seed=0, dtype=torch.float32, **settings):
    model = Net(seed, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, optimizer, gs.Surgery(strategy, model, **settings)


def ascent(parameters):
    return torch.optim.SGD(parameters, lr=0.1, maximize=True)


def uphill(parameters):
    """A negative rate on a tensor, as a capturable optimizer keeps it."""
    optimizer = torch.optim.SGD(parameters, lr=torch.tensor(0.1))
    optimizer.param_groups[0]["lr"] = torch.tensor(-0.1)
    return optimizer


def state_of(model, optimizer, surgery):
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return (
        flat(model.parameters()),
        grads,
        copy.deepcopy(optimizer.state_dict()),
        surgery.state_dict(),
    )


def same(one, other):
    assert np.array_equal(one[0], other[0])
    for a, b in zip(one[1], other[1], strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert str(one[2:]) == str(other[2:])


@pytest.mark.parametrize("guard", ["report", "correct"])
def test_under_a_scaler_the_step_is_that_without_one(guard):
    model, optimizer, surgery = built()
    plain = built()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    seen = []
    for step in range(5):
        for m, o, s, given in ((model, optimizer, surgery, scaler), (*plain, None)):
            o.zero_grad()
            between = (lambda: seen.append(flat([model.trunk[0].weight.grad]))) if given else None
            record = s.step(m.losses(step), o, guard=guard, scaler=given, between=between)
        scaler.update()
        assert np.allclose(seen[-1], flat([plain[0].trunk[0].weight.grad]), rtol=1e-5, atol=1e-7)
        assert np.allclose(flat(model.parameters()), flat(plain[0].parameters()), atol=1e-6)
        assert record.change is not None
    assert len(seen) == 5


def test_a_step_that_the_scaler_skips_has_no_change():
    model, optimizer, surgery = built()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = flat(model.parameters())
    losses = {name: 100 * loss for name, loss in model.losses(0).items()}
    record = surgery.step(losses, optimizer, guard="correct", scaler=scaler)
    scaler.update()
    assert record.change is None
    assert all("skipped" in group.unmeasured for group in record.values())
    assert np.array_equal(flat(model.parameters()), before)


def test_gradients_that_were_unscaled_are_an_error_before_anything_changes():
    model, optimizer, surgery = built()
    scaler = torch.amp.GradScaler("cpu")
    surgery.backward(model.losses(0), scaler=scaler)
    scaler.unscale_(optimizer)
    before = state_of(model, optimizer, surgery)
    with pytest.raises(gs.InputError, match="unscale_"):
        surgery.step(model.losses(1), optimizer, scaler=scaler)
    same(before, state_of(model, optimizer, surgery))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"guard": "fix"}, "guard"),
        ({"guard_on": "a"}, "guard_on"),
        ({"guard_on": ["z"]}, "guard_on"),
        ({"guard_on": "protected"}, "protect"),
        ({"guard_on": []}, "guard_on: no objective is named; give names"),
        ({"bound": 0.5}, "bound"),
        ({"bound": 10**400}, "bound: expected a finite number .* a number of 401 digits"),
        ({"between": 3}, "between"),
        ({"scaler": 3}, "scaler"),
        ({"optimizer": torch.optim.LBFGS}, "closure"),
        ({"optimizer": torch.optim.LBFGS, "guard": "off"}, "closure"),
        ({"optimizer": torch.optim.ASGD}, "average"),
        ({"optimizer": ascent, "guard": "correct"}, "maximize"),
        ({"optimizer": uphill, "guard": "correct"}, "lr=-0.1, and guard='correct' would undo"),
        ({"optimizer": uphill, "metric": "optimizer"}, "lr=-0.1, and metric='optimizer' would"),
        ({"optimizer": ascent, "metric": "optimizer"}, "maximize=True, and metric='optimizer'"),
        ({"optimizer": lambda p: None}, "expected one"),
    ],
)
def test_what_cannot_be_used_is_an_error_before_anything_changes(given, message):
    model, optimizer, surgery = built()
    surgery.step(model.losses(0), optimizer)
    before = state_of(model, optimizer, surgery)
    make = given.pop("optimizer", None)
    used = optimizer if make is None else make(model.parameters())
    with pytest.raises(gs.InputError, match=message):
        surgery.step(model.losses(1), used, **given)
    same(before, state_of(model, optimizer, surgery))


def test_settings_under_which_gradients_are_not_held():
    for settings in ({"memory": "low"}, {}):
        model, optimizer, surgery = built(**settings)
        z = model.trunk(torch.ones(2, 4))
        losses = {"a": model.heads[0](z).pow(2).mean(), "b": model.heads[1](z).pow(2).mean()}
        call = {} if settings else {"features": z}
        with pytest.raises(gs.InputError, match="memory='low'|features="):
            surgery.step(losses, optimizer, guard="correct", **call)
        record = surgery.step(losses, optimizer, **call)
        if record.change is None:
            assert any(group.unmeasured for group in record.values())


def test_an_optimizer_that_fails_and_a_measurement_that_fails(monkeypatch):
    model, optimizer, surgery = built()
    before = flat(model.parameters())
    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "step", lambda: 1 / 0)
        with pytest.raises(gs.OptimizerError, match="ZeroDivisionError"):
            surgery.step(model.losses(0), optimizer)
    assert np.array_equal(flat(model.parameters()), before)
    model, optimizer, surgery = built("sum", lr=0.08)
    other = built("sum", lr=0.08)
    monkeypatch.setattr(after_optimizer, "metric_of", lambda *_, **__: 1 / 0)
    failed = 0
    for step in range(30):
        for m, o, s in ((model, optimizer, surgery), other):
            o.zero_grad()
            if s is other[2]:
                s.backward(m.losses(step))
                o.step()
                continue
            with contextlib.suppress(gs.OptimizerError):
                s.step(m.losses(step), o, guard="correct")
                continue
            failed += 1
        assert np.array_equal(flat(model.parameters()), flat(other[0].parameters()))
    assert failed


def test_between_that_fails_leaves_the_parameters():
    model, optimizer, surgery = built()
    before = flat(model.parameters())
    with pytest.raises(ZeroDivisionError):
        surgery.step(model.losses(0), optimizer, between=lambda: 1 / 0)
    assert np.array_equal(flat(model.parameters()), before)


def test_none_combines_what_was_accumulated():
    model, optimizer, surgery = built()
    other = built()
    for step in range(3):
        for s in (surgery, other[2]):
            m = model if s is surgery else other[0]
            for part in (0, 10):
                s.accumulate({k: v / 2 for k, v in m.losses(step + part).items()})
        optimizer.zero_grad()
        other[1].zero_grad()
        record = surgery.step(None, optimizer, guard="report")
        other[2].combine()
        other[1].step()
        assert record.change is not None
        assert np.array_equal(flat(model.parameters()), flat(other[0].parameters()))
    surgery.accumulate(model.losses(9), scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(gs.InputError, match="scaler"):
        surgery.step(None, optimizer)


@pytest.mark.parametrize("settings", [{"method": "taps"}, {"method": "batched"}, {"every": 2}])
def test_change_by_other_ways_to_the_gradients(settings):
    model, optimizer, surgery = built("upgrad", **settings)
    everything = list(model.parameters())
    for step in range(4):
        optimizer.zero_grad()
        losses = model.losses(step)
        rows, before = gradients(model, losses, everything), flat(everything)
        record = surgery.step(losses, optimizer, guard="correct")
        found = np.array(list(record.change.values()))
        moved = flat(everything) - before
        scale = np.linalg.norm(rows, axis=1).max() * np.linalg.norm(moved)
        assert np.abs(found - rows @ moved).max() < 2e-6 * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model, optimizer, surgery = built("sum", lr=0.08, dtype=dtype)
    for step in range(20):
        optimizer.zero_grad()
        record = surgery.step(model.losses(step), optimizer, guard="correct")
        assert record["a+b+c"].risen == ()
    assert surgery.corrections["corrected"] > 0


def test_complex_parameters():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, dtype=torch.complex64))
    optimizer = torch.optim.Adam([weight], lr=0.05)
    surgery = gs.Surgery("sum", [weight])
    for step in range(30):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(4, 3, generator=generator).to(torch.complex64)
        y = torch.randn(2, 4, 2, generator=generator)
        losses = {n: (x @ weight - t).abs().pow(2).mean() for n, t in zip("ab", y, strict=True)}
        rows = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses.values()]
        before = weight.detach().clone()
        optimizer.zero_grad()
        group = next(iter(surgery.step(losses, optimizer, guard="correct").values()))
        moved = weight.detach() - before
        expected = [float((g.conj() * moved).real.sum()) for g in rows]
        assert np.allclose(group.change, expected, atol=1e-5)
        assert group.risen == ()


def test_parameters_that_do_not_move():
    """Not held, frozen by a rate of zero: they stay, and count for nothing."""
    model = Net()
    held = [*model.trunk[2].parameters(), *model.heads.parameters()]
    optimizer = torch.optim.Adam(
        [{"params": held[:1], "lr": 0.0}, {"params": held[1:], "lr": 0.05}]
    )
    surgery = gs.Surgery("sum", model)
    still = [*model.trunk[0].parameters(), held[0]]
    before = flat(still)
    for step in range(20):
        optimizer.zero_grad()
        record = surgery.step(model.losses(step), optimizer, guard="correct")
        assert record["a+b+c"].risen == ()
    assert np.array_equal(flat(still), before)


def test_guarding_the_protected_objective_alone():
    model, optimizer, surgery = built("sum", lr=0.08, protect="b")
    for step in range(30):
        optimizer.zero_grad()
        group = surgery.step(model.losses(step), optimizer, guard="correct", guard_on="protected")
        assert "b" not in group["a+b+c"].risen
    assert surgery.corrections["risen"] > 0


def test_a_correction_is_never_longer_than_the_step():
    """Two losses that cancel on one coordinate, where Adam's metric is largest."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    surgery = gs.Surgery("sum", [weight])
    for step in range(20):
        sign = 1.0 if step % 2 else -1.0
        losses = {
            "a": weight[0] * sign + 1e4 * weight[2],
            "b": weight[1] - 1e4 * weight[2] + 1e-3 * weight[0],
        }
        before = weight.detach().clone()
        optimizer.zero_grad()
        group = next(iter(surgery.step(losses, optimizer, guard="correct").values()))
        assert group.risen == ()
        assert (weight.detach() - before).norm() <= 2.001 * 0.1 * 3**0.5
        assert group.corrected is None or group.corrected <= 2.001


def test_where_no_step_raises_none_the_parameters_stay():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    surgery = gs.Surgery("sum", [weight])
    total = weight.sum()
    record = surgery.step([total, -2 * total], optimizer, guard="correct")
    group = next(iter(record.values()))
    assert group.corrected == 0
    assert group.risen == ()
    assert weight.tolist() == [0.0, 0.0]
    assert surgery.corrections["held"] == 1
    assert pickle.loads(pickle.dumps(record)).change == record.change
    assert copy.deepcopy(surgery).corrections == surgery.corrections

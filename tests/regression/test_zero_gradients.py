"""Gradients of exactly zero: warned of, or absent."""

import warnings

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine import checks
from tests.support.shipped import SHIPPED, plain, ready
from tests.support.three_tasks import F64, Tasks, trunk

STOPPED = {"mgda": {}, "nash-mtl": {}, "imtl-g": {}, "fairgrad": {}, "cr-mogm": {}}


@pytest.mark.parametrize("name", STOPPED)
def test_a_zero_gradient_that_stops_the_trunk_is_said_once(name):
    model = Tasks()
    surgery = gs.Surgery(name, model)
    with pytest.warns(
        UserWarning,
        match=r"gradient of objective 'b' is zero in group 'a\+b\+c'.*leave it out.*zero='absent'",
    ) as caught:
        surgery.backward(model.losses())
    assert [warning.filename for warning in caught] == [__file__]
    assert float(trunk(model).norm()) == 0
    surgery.backward(model.losses(seed=1))  # warnings are errors here


def test_a_strategy_that_averages_is_said_too_when_the_zero_comes_later():
    model = Tasks()
    surgery = gs.Surgery("cr-mogm", model)
    surgery.backward(model.losses(b=1.0))
    with pytest.warns(UserWarning, match="gradient of objective 'b'"):
        surgery.backward(model.losses(seed=1))


def test_the_warning_as_an_error_leaves_the_step_undone():
    model = Tasks()
    surgery = gs.Surgery("mgda", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="gradient"):
            surgery.backward(model.losses())
    assert all(p.grad is None for p in model.parameters())
    assert surgery.state_dict()["step"] == 0


@pytest.mark.parametrize("name", ["mgda", "nash-mtl", "fairgrad"])
def test_ordinary_stationarity_and_a_zero_that_changes_nothing_say_nothing(name):
    weight = nn.Parameter(torch.ones(3, dtype=F64))
    gs.backward({"up": weight.sum(), "down": -weight.sum()}, [weight], name)
    gs.backward(
        {"up": weight.sum(), "down": -weight.sum(), "none": 0 * weight.sum()}, [weight], name
    )  # stationary without it
    gs.backward({"none": 0 * weight.sum(), "neither": 0 * weight.pow(2).sum()}, [weight], name)
    model = Tasks()
    for other in (
        "pcgrad",
        "cagrad",
        "upgrad",
        "dualproj",
        "aligned-mtl",
        "mmpareto",
        "config",
        "scaled-sum",
        "sum",
    ):
        gs.backward(model.losses(), model, other)
        assert float(trunk(model).norm()) > 0


@pytest.mark.parametrize("name", ["gradnorm", "mgda(normalize='loss')"])
def test_a_loss_refused_for_being_zero_says_leave_it_out(name):
    model = Tasks()
    with pytest.raises(
        gs.InputError,
        match=r"leave (it|this objective) out of.*gradient of 'b' is zero.*zero='absent'",
    ):
        gs.Surgery(name, model).backward(model.losses())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(gs.InputError, match="leave it out of losses"):
        gs.backward(model.losses(), model, "gls")


@pytest.mark.parametrize(
    "name",
    [name for name in SHIPPED if ready(name).needs_gradients and name not in ("krum", "cr-mogm")]
    + ["cr-mogm"],
)
def test_absent_is_what_leaving_out_gives(name):
    """Two Surgeries that have both seen every loss: in one `b` is left out, in the other it has a
    gradient of zero.
    """
    strategy = ready(name, "a")
    left, absent = Tasks(), Tasks()
    first, second = gs.Surgery(strategy, left), gs.Surgery(strategy, absent, zero="absent")
    for i, b in enumerate((1.0, 0.0, 0.0, 1.0)):
        left.zero_grad()
        absent.zero_grad()
        only = "abc" if b else "ac"
        if "cross" in strategy.inputs:
            first.backward([left.losses(b, i + 10 * k, only) for k in range(3)])
            record = second.backward([absent.losses(b, i + 10 * k) for k in range(3)])
        else:
            first.backward(left.losses(b, i, only), scores={"a+b+c": 2.0, "another": 1.0})
            record = second.backward(absent.losses(b, i), scores={"a+b+c": 2.0, "another": 1.0})
        assert torch.equal(trunk(left), trunk(absent))
        assert record["a+b+c"].absent == (() if b else ("b",))
        assert record["a+b+c"].objectives == (("a", "b", "c") if b else ("a", "c"))
        assert record["a+b+c"].gram.shape == (3, 3) if b else (2, 2)
    assert plain(first.state_dict()) == plain(second.state_dict())


@pytest.mark.parametrize(
    "settings",
    [
        {"memory": "low"},
        {"method": "taps"},
        {"method": "batched"},
        {"protect": "a"},
        {"protect": "b"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["mgda", "nash-mtl"])
def test_absent_under_other_settings(name, settings):
    expected, model = Tasks(), Tasks()
    gs.backward(
        expected.losses(only="ac"),
        expected,
        name,
        **{k: v for k, v in settings.items() if v != "b"},
    )
    gs.backward(model.losses(), model, name, zero="absent", **settings)
    assert torch.allclose(trunk(expected), trunk(model), rtol=1e-12)
    assert float(model.heads["b"].weight.grad.norm()) == 0


def test_absent_at_features_under_a_scaler_and_gathered():
    expected, model, scaled, gathered = Tasks(), Tasks(torch.float32), Tasks(), Tasks()
    kept = []
    z = lambda z: kept.append(z) or z  # noqa: E731
    gs.backward(expected.losses(only="ac"), expected, "mgda", features=None)
    gs.Surgery("mgda", scaled, zero="absent").backward(
        scaled.losses(), scaler=torch.amp.GradScaler("cpu", init_scale=2.0**12)
    )
    assert torch.allclose(trunk(scaled) / 2**12, trunk(expected))
    surgery = gs.Surgery("mgda", gathered, zero="absent")
    for _ in range(2):
        surgery.accumulate({k: v / 2 for k, v in gathered.losses().items()})
    assert surgery.combine()["a+b+c"].absent == ("b",)
    assert torch.allclose(trunk(gathered), trunk(expected))
    record = gs.backward(model.losses(z=z), model, "mgda", features=kept[-1], zero="absent")
    other = Tasks(torch.float32)
    gs.backward(other.losses(only="ac", z=z), other, "mgda", features=kept[-1])
    assert record["a+b+c"].absent == ("b",)
    assert torch.allclose(trunk(model), trunk(other))


def test_absent_with_weights_used_again():
    """An objective that was absent when a group was solved has no weight to use again: such a step
    is solved; others replay.
    """
    model = Tasks()
    surgery = gs.Surgery("mgda", model, every=3, zero="absent")
    seen = []
    for i, b in enumerate((0.0, 0.0, 1.0, 1.0, 0.0, 1.0)):
        model.zero_grad()
        group = surgery.backward(model.losses(b, i))["a+b+c"]
        seen.append((group.replayed, group.absent))
        assert float(trunk(model).norm()) > 0
    assert seen == [
        (False, ("b",)),
        (False, ("b",)),
        (False, ()),
        (True, ()),
        (True, ()),
        (False, ()),
    ]
    gathered = Tasks()
    surgery = gs.Surgery("mgda", gathered, every=3, zero="absent")
    replayed = []
    for b in (0.0, 0.0, 1.0):
        surgery.accumulate(gathered.losses(b))
        replayed.append(surgery.combine()["a+b+c"].replayed)
    assert replayed == [False, True, False]


def test_few_or_none_left_get_the_plain_gradient():
    model, expected = Tasks(), Tasks()
    record = gs.backward(
        {"a": model.losses()["a"], "b": model.losses()["b"]}, model, "nash-mtl", zero="absent"
    )
    expected.losses()["a"].backward()
    assert torch.equal(trunk(model), trunk(expected))
    assert (record["a+b"].strategy, record["a+b"].objectives, record["a+b"].weights.tolist()) == (
        "plain",
        ("a",),
        [1.0],
    )
    model = Tasks()
    record = gs.backward(
        {name: 0 * loss for name, loss in model.losses(1.0).items()},
        model,
        "nash-mtl",
        zero="absent",
    )
    assert float(trunk(model).abs().max()) == 0
    group = record["a+b+c"]
    assert (group.objectives, group.absent, group.stationary) == ((), ("a", "b", "c"), None)
    assert "absent, with a gradient of zero: a, b, c" in str(record)


@pytest.mark.parametrize("method", ["gradients", "taps"])
def test_gradients_whose_squares_underflow_are_not_zero(method):
    model = Tasks()
    record = gs.backward(model.losses(1e-200), model, "mgda", zero="absent", method=method)
    assert record["a+b+c"].absent == ()
    assert float(model.heads["b"].weight.grad.abs().max()) > 0
    small = Tasks(torch.float32)
    assert gs.backward(small.losses(1e-30), small, "mgda", zero="absent")["a+b+c"].absent == ()
    assert gs.backward(small.losses(0.0), small, "mgda", zero="absent")["a+b+c"].absent == ("b",)


def test_in_explicit_groups_what_only_the_absent_one_reaches_gets_zero():
    model = Tasks()
    record = gs.backward(model.losses(), {"all": model}, "imtl-g", zero="absent")
    assert record["all"].absent == ("b",)
    assert float(model.heads["b"].weight.grad.abs().max()) == 0
    assert float(model.heads["a"].weight.grad.abs().max()) > 0


def test_the_setting_is_checked():
    with pytest.raises(gs.InputError, match=r"unknown zero 'skip'.*absent"):
        gs.Surgery("mgda", nn.Linear(1, 1), zero="skip")
    for value in (0, -1, 1.5, True, "1"):
        with pytest.raises(gs.InputError, match="measure"):
            gs.Surgery("sum", nn.Linear(1, 1), measure=value)
    with pytest.raises(gs.StrategyError, match="named like an argument"):
        gs.strategy("has-zero", paper="none", scale="sum")(lambda gram, *, zero=1: gram)


def test_one_transfer_where_a_gradient_is_zero(monkeypatch):
    model = Tasks(torch.float32)
    found = []
    real = checks.to_host
    monkeypatch.setattr(
        checks, "to_host", lambda *given, **more: found.append(1) or real(*given, **more)
    )
    gs.backward(model.losses(), model, "mgda", zero="absent")
    assert found == [1]

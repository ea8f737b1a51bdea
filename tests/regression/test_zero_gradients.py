"""Zero gradients, what a Record says of conflicts, phases of training, and models converted midway."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from models import TwoEncoders, both, grads, same
from torch import nn
from zoo import SHIPPED, plain, ready, step

import gradsurgery as gs
from gradsurgery.engine import measure, on_groups

F64 = torch.float64
STOPPED = {"mgda": {}, "nash-mtl": {}, "imtl-g": {}, "fairgrad": {}, "cr-mogm": {}}


class Tasks(nn.Module):
    """A trunk and three heads; `b` is multiplied by a mask, which is 0 where it has no labels."""

    def __init__(self, dtype=F64):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in "abc"})
        self.to(dtype)

    def losses(self, b=0.0, seed=0, only="abc", z=None):
        generator = torch.Generator().manual_seed(seed)
        x, targets = (
            torch.randn(7, 4, generator=generator, dtype=F64),
            torch.randn(3, 7, 1, generator=generator, dtype=F64),
        )
        dtype = self.heads["a"].weight.dtype
        z = self.trunk(x.to(dtype)) if z is None else z(self.trunk(x.to(dtype)))
        found = {
            name: (self.heads[name](z) - t.to(dtype)).pow(2).mean()
            for name, t in zip("abc", targets, strict=True)
        }
        found["b"] = b * found["b"]
        return {name: found[name] for name in only}


def trunk(model):
    return torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()])


# ---- an objective whose gradient is exactly zero


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
    """Two Surgeries that have both seen every loss: in one `b` is left out, in the other it has a gradient of zero."""
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
    """An objective that was absent when a group was solved has no weight to use again: such a step is solved; others replay."""
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


# ---- what a Record says of conflicts

GRADIENT_FREE = [name for name in SHIPPED if not ready(name, "fused").needs_gradients]


@pytest.mark.parametrize("name", GRADIENT_FREE)
def test_measured_steps_have_conflicts_and_the_same_direction(name):
    plainly, measuring = TwoEncoders(), TwoEncoders()
    first, second = (
        gs.Surgery(ready(name, "fused"), plainly),
        gs.Surgery(ready(name, "fused"), measuring, measure=2),
    )
    for i in range(3):
        expected = gs.inspect(measuring.losses(i), measuring)
        a, b = step(first, plainly.losses(i)), step(second, measuring.losses(i))
        assert all(torch.equal(x, y) for x, y in both(plainly, measuring))
        assert a.losses == b.losses
        assert list(a) == list(b)
        for group in b:
            assert np.array_equal(a[group].weights, b[group].weights)
            if i % 2 == 0:
                assert np.array_equal(b[group].gram, expected[group].gram)
                assert b[group].conflicts == expected[group].conflicts
                assert b[group].stationary is expected[group].stationary
            else:  # `dgl` needs the gradients for its weights all the same
                assert (b[group].gram is None) == (a[group].gram is None) == (name != "dgl")
        assert ("conflicts not measured" in str(b)) == (i % 2 == 1 and name != "dgl")
    assert plain(first.state_dict()) == plain(second.state_dict())
    assert pickle.loads(pickle.dumps(b.losses)) == b.losses


def test_nothing_is_measured_unless_asked_for(monkeypatch):
    model = TwoEncoders()
    monkeypatch.setattr(measure, "settle", None)
    record = gs.Surgery("sum", model).backward(model.losses())
    assert record["audio+fused"].conflicts is None
    assert (
        str(record).count("conflicts not measured") == 2
    )  # the two encoders: heads have one objective each
    assert "no conflict" in str(
        gs.backward(
            {"a": model.audio[0].weight.sum(), "b": model.audio[0].weight.sum()}, model, "mgda"
        )
    )


@pytest.mark.parametrize(
    "settings",
    [{"memory": "low"}, {"nonfinite": "ignore"}, {"method": "batched"}, {"method": "taps"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["sum", "mgda"])
def test_measured_with_replays_and_other_settings(name, settings):
    plainly, measuring = TwoEncoders(), TwoEncoders()
    first, second = (
        gs.Surgery(name, plainly, every=3, **settings),
        gs.Surgery(name, measuring, every=3, measure=2, **settings),
    )
    replayed = []
    for i in range(6):
        expected = gs.inspect(measuring.losses(i), measuring)["audio+fused"]
        first.backward(plainly.losses(i))
        group = second.backward(measuring.losses(i))["audio+fused"]
        replayed.append(group.replayed)
        if i % 2 == 0:
            assert np.allclose(group.gram, expected.gram, rtol=1e-10)
        assert all(torch.equal(x, y) for x, y in both(plainly, measuring))
    assert replayed == 2 * [False, True, True]


def test_measured_at_features_under_a_scaler_and_gathered():
    model = Tasks()
    kept = []
    z = lambda z: kept.append(z) or z  # noqa: E731
    record = gs.Surgery("sum", model, measure=1).backward(model.losses(1.0, z=z), features=kept[-1])
    losses = model.losses(1.0, z=z)
    at_z = torch.stack(
        [
            torch.autograd.grad(loss, kept[-1], retain_graph=True)[0].reshape(-1)
            for loss in losses.values()
        ]
    )
    assert np.allclose(record["a+b+c"].gram, (at_z @ at_z.T).numpy())
    expected = gs.inspect(model.losses(1.0), model)["a+b+c"].gram
    surgery = gs.Surgery("uw", model, measure=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert np.allclose(surgery.backward(model.losses(1.0), scaler=scaler)["a+b+c"].gram, expected)
    overflow = surgery.backward(
        {k: v * torch.inf for k, v in model.losses(1.0).items()}, scaler=scaler
    )
    assert overflow.overflow
    assert overflow["a+b+c"].gram is None
    surgery.accumulate(model.losses(1.0))
    assert np.allclose(surgery.combine()["a+b+c"].gram, expected)


@pytest.mark.slow
def test_measured_behind_a_compiled_region_shows_the_groups_of_the_plain_model():
    model = Tasks(torch.float32)
    expected = gs.inspect(model.losses(1.0), model)
    losses = torch.compile(lambda: model.losses(1.0), backend="aot_eager")
    record = gs.Surgery("sum", model, measure=2).backward(losses())
    assert record.strategy == "sum"
    for name, group in expected.items():
        assert np.allclose(record[name].gram, group.gram, rtol=1e-4)
        assert record[name].weights.tolist() == [1.0] * len(group.objectives)


def test_a_failing_step_measures_nothing_and_frees_no_more_than_asked():
    model = Tasks()
    surgery = gs.Surgery("sum", model, measure=1)
    with pytest.raises(gs.NonFiniteError, match="'b'"):
        surgery.backward(model.losses(torch.nan))
    assert all(p.grad is None for p in model.parameters())
    losses = model.losses(1.0)
    surgery.backward(losses, retain_graph=True)
    once = grads(model)
    model.zero_grad()
    surgery.backward(losses)
    assert same(once, grads(model))
    with pytest.raises(gs.InputError, match="retain_graph"):
        surgery.backward(losses)


def test_the_mean_cosine_stands_beside_conflicts():
    weight = nn.Parameter(torch.zeros(2, dtype=F64))
    losses = {"up": weight[0] + weight[1], "down": -weight[0], "side": weight[1] - 0.1 * weight[0]}
    group = gs.inspect(losses, [weight])["down+side+up"]
    cosines = [group.cosines[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert group.mean_cosine == pytest.approx(np.mean(cosines))
    assert f"mean cosine {group.mean_cosine:.3g}, conflicts up/down" in str(
        gs.inspect(losses, [weight])
    )
    assert gs.inspect({"up": weight.sum()}, [weight])["up"].mean_cosine is None
    spoilt = str(gs.inspect({"up": weight.sum(), "nan": torch.nan * weight.sum()}, [weight]))
    assert "no conflict" not in spoilt


def test_a_comparison_prints_the_mean_cosine_beside_the_conflict_rate(tmp_path):
    from rich.console import Console

    from gradsurgery.compare import BASELINE, Plan, compare, remarks, summarise, table
    from gradsurgery.tasks import Problem, task

    x = torch.ones(8, 1)

    def losses(model, batch):
        out = model(batch[0]).mean()
        return {"one": out, "other": -out}

    def load(data_root=None):
        return Problem(
            (x,), (x,), (x,), lambda: nn.Linear(1, 1), lambda p, lr: torch.optim.SGD(p, lr=lr),
            losses, lambda model, examples: {"one": 50.0, "other": 50.0}, 10.0,
        )  # fmt: skip

    task("opposed-for-records", epochs=1, batch=4, lr=0.1, paper="a toy")(load)
    plan = Plan.of(["opposed-for-records"], ["sum"], [0])
    results = compare(plan, tmp_path)
    assert results.runs[0]["mean_cosine"] == pytest.approx({"one+other": -1.0})
    rows = summarise(results.lines, BASELINE)["opposed-for-records"]
    assert rows[0].mean_cosine == pytest.approx(-1.0)
    console = Console(width=100, record=True, file=open(tmp_path / "table", "w"))  # noqa: SIM115
    console.print(table("opposed", rows))
    console.file.close()
    assert "mean cosine" in (text := console.export_text())
    assert "-1.00" in text
    assert any("mean cosine" in note for note in remarks({"opposed": rows}, plan))
    for line in results.lines:
        line.pop("mean_cosine", None)  # results of before
    assert summarise(results.lines, BASELINE)["opposed-for-records"][0].mean_cosine is None


# ---- phases and groups


def test_a_phase_that_is_over_no_longer_splits_the_trunk():
    model = Tasks()
    surgery = gs.Surgery("gradvac", model, every=2)
    penalty = lambda: {"warm-up": model.trunk[0].weight.pow(2).sum()}  # noqa: E731
    surgery.backward(penalty())
    assert "a+b+c+warm-up" in surgery.backward(model.losses(1.0))
    before = surgery.state_dict()
    for wrong, message in (((), "name the objectives"), (("warmup",), "Did you mean 'warm-up'")):
        with pytest.raises(gs.InputError, match=message):
            surgery.forget(*wrong)
    assert plain(surgery.state_dict()) == plain(before)
    surgery.forget("warm-up")
    record = surgery.backward(model.losses(1.0, seed=1))
    assert list(record) == ["a+b+c", "a", "b", "c"]
    assert record["a+b+c"].parameters == 2
    assert not record["a+b+c"].replayed
    again = gs.Surgery("gradvac", Tasks(), every=2)
    again.load_state_dict(surgery.state_dict())
    assert plain(again.state_dict()) == plain(surgery.state_dict())


def test_forgetting_keeps_the_state_of_the_others_by_parameter():
    """Rows of both parts go on: `moco` after the split was forgotten remembers what it knew of each parameter."""
    model = Tasks()
    surgery = gs.Surgery("moco", model)
    surgery.backward(model.losses(1.0))
    surgery.backward({**model.losses(1.0, 1), "extra": model.trunk[0].weight.pow(2).sum()})
    groups = {
        key: dict(next(iter(state["tensors"].values()), ()))
        for key, state in surgery.state_dict()["groups"]
    }
    of_weight, of_bias = groups["a", "b", "c", "extra"], groups["a", "b", "c"]
    rows = {
        (o, p): rows[o, p]
        for o in "abc"
        for p, rows in (("trunk.0.weight", of_weight), ("trunk.0.bias", of_bias))
    }
    surgery.forget("extra")
    groups = dict(surgery.state_dict()["groups"])
    joined = dict(next(iter(groups["a", "b", "c"]["tensors"].values())))
    assert joined.keys() == rows.keys()
    assert all(torch.equal(joined[key], rows[key]) for key in rows)
    assert all(
        "extra" not in key
        for _, state in surgery.state_dict()["groups"]
        for key in dict(next(iter(state["tensors"].values()), ()))
    )
    surgery.backward(model.losses(1.0, 2))
    surgery.accumulate(model.losses(1.0))
    with pytest.raises(gs.InputError, match="combine"):
        surgery.forget("a")


def physics(net):
    t = torch.linspace(0, 1, 9, dtype=F64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(net(t).sum(), t, create_graph=True)
    return {
        "residual": (slope + 1).pow(2).mean(),
        "start": (net(torch.zeros(1, 1, dtype=F64)) - 1).pow(2).mean(),
    }


def test_a_record_says_which_loss_splits_one_tensor_off():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    text = str(gs.backward(physics(net), net, "config"))
    assert text.count("apart from") == 1
    assert "'residual' does not reach it (one group for both: parameters={'net': net})" in text
    assert "apart from" not in str(gs.backward(physics(net), {"net": net}, "config"))
    assert "apart from" not in str(
        gs.backward(
            physics(net),
            {"bias": [net[2].bias], "rest": [net[0].weight, net[0].bias, net[2].weight]},
            "config",
        )
    )


def test_a_record_says_nothing_of_heads_and_encoders_of_one_tensor():
    torch.manual_seed(0)
    trunk, a, b = nn.Linear(3, 4), nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
    z = trunk(torch.randn(5, 3))
    assert "apart from" not in str(
        gs.backward({"a": a(z).mean(), "b": b(z).pow(2).mean()}, None, "mgda")
    )
    model = TwoEncoders()
    assert "apart from" not in str(gs.backward(model.losses(), model, "mgda"))


# ---- a model converted midway


@pytest.mark.parametrize(
    "convert", [nn.Module.double, nn.Module.half, nn.Module.bfloat16], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("given", ["module", "none"])
def test_a_model_converted_while_gradients_are_gathered(convert, given):
    model, expected = Tasks(torch.float32), Tasks(torch.float32)
    surgery = gs.Surgery("mgda", model if given == "module" else None)
    surgery.accumulate(model.losses(1.0))
    convert(model)
    held = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for _ in range(2):
        with pytest.raises(gs.InputError, match=r"combine: .*was float32 .*discard\(\)"):
            surgery.combine()
    losses = model.losses(1.0)
    with pytest.raises(gs.InputError, match=r"accumulate: .*was float32 .*discard\(\)"):
        surgery.accumulate(losses)
    assert [p.grad for p in model.parameters()] == held == [None] * len(held)
    model.float()
    surgery.combine()  # what was gathered is still there
    gs.backward(expected.losses(1.0), expected, "mgda")
    assert torch.allclose(
        trunk(model), trunk(expected), rtol=1e-2 if convert is not nn.Module.double else 1e-5
    )
    surgery.accumulate(model.losses(1.0))
    model.double()
    surgery.discard()
    model.zero_grad()
    surgery.backward(model.losses(1.0))
    assert model.trunk[0].weight.grad.dtype == F64


@pytest.mark.parametrize("name", ["sum", "mgda", "graddrop", "scaled-sum"])
@pytest.mark.parametrize("part", ["whole", "trunk"])
def test_a_model_converted_after_the_forward_pass(name, part):
    """Autograd finds no way from the old graph to a converted parameter: an error, in place of no gradient and no word."""
    model = Tasks(torch.float32)
    surgery = gs.Surgery(name, model)
    losses = model.losses(1.0)
    (model if part == "whole" else model.trunk).double()
    with pytest.raises(gs.InputError, match="converted to float64 .*after the forward pass"):
        surgery.backward(losses, retain_graph=True)
    with pytest.raises(gs.InputError, match="converted to float64"):
        surgery.accumulate(losses)
    assert all(p.grad is None for p in model.parameters())
    surgery.backward(model.double().losses(1.0))
    assert all(p.grad is not None for p in model.parameters())


def test_a_gradient_of_none_from_a_function_is_no_conversion():
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g, None

    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    surgery = gs.Surgery("mgda", [a, b])
    surgery.backward({"x": Nothing.apply(a, b).sum(), "y": a.pow(2).sum()})
    assert b.grad is None
    assert a.grad is not None


def test_one_transfer_where_a_gradient_is_zero(monkeypatch):
    model = Tasks(torch.float32)
    found = []
    real = on_groups.to_host
    monkeypatch.setattr(
        on_groups, "to_host", lambda groups, values=(): found.append(1) or real(groups, values)
    )
    gs.backward(model.losses(), model, "mgda", zero="absent")
    assert found == [1]

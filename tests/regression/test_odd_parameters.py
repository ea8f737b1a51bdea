"""What a hostile review found, each as it was found."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from models import TwoEncoders, both, by_loss
from torch import nn
from zoo import plain

import gradsurgery as gs
from gradsurgery.engine.parameters import Parameters
from gradsurgery.solvers import min_norm, nearest_above

F64 = torch.float64


class Small(nn.Module):
    """A trunk of two layers and two heads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.a, self.b = nn.Linear(5, 1), nn.Linear(5, 1)
        self.double()

    def of(self, z):
        return {"a": self.a(z.tanh()).exp().mean(), "b": (self.b(z) - 1).pow(2).mean()}


def x(rows=7):
    return torch.randn(rows, 4, dtype=F64, generator=torch.Generator().manual_seed(1))


def test_a_hook_on_a_feature_would_act_twice():
    model = Small()
    for prepare in (lambda z: z.register_hook(lambda g: -g), lambda z: z.retain_grad()):
        z = model.trunk(x())
        prepare(z)
        with pytest.raises(gs.InputError, match=r"features has a hook or retain_grad\(\).*view_as"):
            gs.backward(model.of(z), model, "sum", features=z)
    z = model.trunk(x())
    z.register_hook(lambda g: -g)  # gradient reversal, with the remedy that the message names
    given = z.view_as(z)
    gs.backward(model.of(given), model, "sum", features=given)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    z = model.trunk(x())
    z.register_hook(lambda g: -g)
    sum(model.of(z).values()).backward()
    assert all(torch.allclose(a, p.grad) for a, p in zip(found, model.parameters(), strict=True))


def test_features_of_heads_compiled_as_one_region():
    torch.manual_seed(0)
    model = TwoEncoders()
    a, v = torch.randn(8, 4, dtype=F64), torch.randn(8, 5, dtype=F64)

    def heads(a, v):
        return (
            model.fusion(torch.cat([a, v], 1)).exp().mean(),
            -model.audio_head(a).exp().mean(),
            model.visual_head(v).pow(2).mean(),
        )

    def step(call):
        model.zero_grad()
        first, second = model.audio(a), model.visual(v)
        losses = dict(zip(("fused", "audio", "visual"), call(first, second), strict=True))
        record = gs.backward(losses, model, "mgda", features=[first, second])
        return set(record), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = step(torch.compile(heads, backend="aot_eager", fullgraph=True))
    eager = step(heads)
    assert compiled[0] == eager[0]
    assert all(torch.allclose(a, b) for a, b in zip(compiled[1], eager[1], strict=True))


def test_a_region_for_one_pass_behind_another_region():
    """In a process of its own, where the package comes after the forward pass."""
    code = """
import torch, warnings
warnings.simplefilter("ignore")
trunk, head = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 8), torch.nn.GELU()), torch.nn.Linear(8, 2)
out = torch.compile(head, backend="aot_eager")(torch.compile(trunk, backend="aot_eager")(torch.randn(5, 4)))
import gradsurgery as gs
try:
    gs.backward(dict(zip("ab", out.pow(2).mean(0))), list(trunk.parameters()), "mgda")
except gs.InputError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "allows one backward pass only" in ran.stdout, ran.stderr


class TwoOut(torch.autograd.Function):
    """p² and q³; an output that no loss uses gives None, which the graph does not show."""

    @staticmethod
    def forward(ctx, p, q):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(p, q)
        return p**2, q**3

    @staticmethod
    def backward(ctx, g, h):
        p, q = ctx.saved_tensors
        return None if g is None else 2 * p * g, None if h is None else 3 * q**2 * h


def test_every_where_the_graph_shows_more_than_the_gradients():
    shared, p, q = (nn.Parameter(torch.tensor([1.0, 2.0], dtype=F64)) for _ in range(3))
    surgery = gs.Surgery("mgda", [shared, p, q], every=2)
    for _ in range(4):
        for t in (shared, p, q):
            t.grad = None
        first, second = TwoOut.apply(p, q)
        losses = {"a": first.sum() + shared.sum(), "b": second.sum() - 2 * shared[0]}
        record = surgery.backward(losses)
        assert set(record) == {"a+b", "a", "b"}
        assert p.grad.tolist() == [2.0, 4.0]
        assert q.grad.tolist() == [3.0, 12.0]


def test_protect_in_steps_that_replay_weights_of_losses():
    for strategy in ("sum", "mean", "uw"):
        p = nn.Parameter(torch.zeros(2, dtype=F64))
        surgery = gs.Surgery(strategy, [p], protect="a", every=2)
        for _ in range(4):
            p.grad = None
            surgery.backward(
                {
                    "a": p @ torch.tensor([1.0, 0.0], dtype=F64),
                    "b": p @ torch.tensor([-3.0, 1.0], dtype=F64),
                }
            )
            assert p.grad[0] >= -1e-12
            assert p.grad[1] > 0


def test_combine_with_every_solves_all_groups_when_it_solves_one():
    p, q = nn.Parameter(torch.ones(3, dtype=F64)), nn.Parameter(torch.ones(3, dtype=F64))
    surgery = gs.Surgery("mgda", [p, q], every=2)
    replayed = []
    for step in range(6):
        losses = {"a": p.pow(2).sum(), "b": -p[0], "c": q.sum(), "d": -q[1]}
        if step % 2:
            losses["e"] = q[2] * 3
        surgery.accumulate(losses)
        record = surgery.combine()
        replayed.append(record["a+b"].replayed)
    assert not any(replayed)


def test_combine_with_every_and_losses_that_change():
    p = nn.Parameter(torch.ones(3, dtype=F64))
    surgery = gs.Surgery("dwa", [p], every=3)
    replayed = []
    for names in ("ab", "abc", "abc", "abc", "abc"):
        surgery.accumulate({n: (p * (i + 1)).pow(2).sum() for i, n in enumerate(names)})
        record = surgery.combine()
        replayed.append(next(iter(record.groups.values())).replayed)
    assert replayed == [False, False, True, True, False]


def test_features_with_every_and_parameters_that_were_not_given():
    model, plainly = Small(), Small()
    surgery = gs.Surgery("mgda", [model.trunk[2].weight], every=2)
    for _ in range(4):
        model.zero_grad()
        plainly.zero_grad()
        z = model.trunk(x())
        record = surgery.backward(model.of(z), features=z)
        sum(plainly.of(plainly.trunk(x())).values()).backward()
        for name, p in model.named_parameters():
            assert torch.allclose(p.grad, plainly.get_parameter(name).grad) == (
                name != "trunk.2.weight"
            ), (record.step, name)


@pytest.mark.parametrize("strategy", ["mgda", "sum"])
def test_an_overflow_that_comes_behind_the_features(strategy):
    class Huge(torch.autograd.Function):
        @staticmethod
        def forward(ctx, t):
            return t.view_as(t)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    model = Small()
    surgery, scaler = gs.Surgery(strategy, model), torch.amp.GradScaler("cpu", init_scale=4.0)
    state = plain(surgery.state_dict())
    z = model.trunk[2](Huge.apply(model.trunk[0](x())))
    record = surgery.backward(model.of(z), features=z, scaler=scaler)
    assert record.overflow
    assert all(torch.isinf(p.grad).all() for p in model.parameters())
    assert plain(surgery.state_dict()) == state


def test_an_overflow_that_comes_with_the_combination():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    big = 2e38
    losses = {"a": big * p.sum() + q.sum(), "b": big * p.sum() - q[0]}
    surgery = gs.Surgery("pcgrad", {"p": [p], "q": [q]})
    record = surgery.backward(losses, scaler=torch.amp.GradScaler("cpu", init_scale=1.0))
    assert record.overflow
    assert torch.isinf(p.grad).all()
    assert torch.isinf(q.grad).all()
    assert surgery.state_dict()["step"] == 0


def test_gradients_that_lie_in_one_storage():
    def losses(p, q):
        s = p.view(6) + q.view(6)
        return {"a": s.pow(2).sum(), "b": (s - 1).pow(2).sum()}

    def fresh():
        return nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(3, 2))

    p, q = fresh()
    expected = torch.autograd.grad(sum(losses(p, q).values()), [p, q])
    gs.backward(losses(p, q), [p, q], "scaled-sum")
    assert torch.allclose(p.grad, 1.5 * expected[0])
    assert torch.allclose(q.grad, 1.5 * expected[1])
    p, q = fresh()
    surgery = gs.Surgery("sum", [p, q])
    for _ in range(3):
        surgery.accumulate(losses(p, q))
    surgery.combine()
    assert torch.allclose(p.grad, 3 * expected[0])
    assert torch.allclose(q.grad, 3 * expected[1])


@pytest.mark.parametrize("shape", [(7, 5), (3,)])
def test_a_parameter_named_features(shape):
    model, other = Small(), Small()
    for m in (model, other):
        m.features = nn.Parameter(torch.ones(shape, dtype=F64))
    z = model.trunk(x())
    losses = {n: loss + model.features.sum() for n, loss in model.of(z).items()}
    gs.backward(losses, model, "sum", features=z)
    sum((loss + other.features.sum()) for loss in other.of(other.trunk(x())).values()).backward()
    assert all(torch.allclose(a, b) for a, b in both(model, other))


def test_features_beside_explicit_groups_are_grouped_by_reach():
    model = TwoEncoders()
    a, v = model.audio(torch.ones(2, 4, dtype=F64)), model.visual(torch.ones(2, 5, dtype=F64))
    losses = {
        "fused": model.fusion(torch.cat([a, v], 1)).exp().mean(),
        "audio": model.audio_head(a).exp().mean(),
        "visual": model.visual_head(v).exp().mean(),
    }
    heads = {
        "heads": nn.ModuleList([model.fusion, model.audio_head, model.visual_head]),
        "audio+fused": model.audio,
        "v": model.visual,
    }
    record = gs.backward(losses, heads, "mgda", features=[a, v])
    assert set(record) == {"audio+fused (2)", "fused+visual", "heads"}


def test_inside_an_autocast_region():
    rows = torch.randn(3, 1 << 18)
    for name in ("moco", "cagrad", "mgda"):
        found = []
        for inside in (False, True):
            p = nn.Parameter(torch.zeros(1 << 18))
            losses = {n: (p * row).sum() + 1 for n, row in zip("abc", rows, strict=True)}
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                gs.Surgery(name, [p]).backward(losses)
                found.append(p.grad)
            strategy = gs.get_strategy(name)
            extra = {"state": gs.State()} if "state" in strategy.inputs else {}
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                alone = strategy(rows, losses=[1.0, 1.0, 1.0], **extra)
            assert float((alone - p.grad).norm()) <= 1e-5 * float(p.grad.norm()), name
        assert float((found[0] - found[1]).norm()) <= 1e-6 * float(found[0].norm()), name


@pytest.mark.parametrize("strategy", ["random", "uw", "mgda"])
def test_every_behind_a_compiled_region(strategy):
    model = Small()
    unused = nn.Parameter(torch.zeros(2, dtype=F64))
    data = x()

    def losses():
        found = model.of(model.trunk(data))
        return found["a"] + 0 * unused.sum(), found["b"]

    found = []
    for call in (torch.compile(losses, backend="aot_eager", fullgraph=True), losses):
        surgery = gs.Surgery(strategy, [*model.parameters(), unused], every=2)
        for _ in range(4):
            model.zero_grad()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                record = surgery.backward(dict(zip("ab", call(), strict=True)))
            found.append((record["a+b"].replayed, [p.grad.clone() for p in model.parameters()]))
    for compiled, eager in zip(found[:4], found[4:], strict=True):
        assert compiled[0] == eager[0]
        assert all(torch.allclose(a, b) for a, b in zip(compiled[1], eager[1], strict=True))
    assert [r for r, _ in found[:4]] == [False, True, False, True]


def test_parameters_frozen_between_forward_and_backward():
    model, other = Small(), Small()
    for strategy in ("sum", "mgda"):
        for given in (model, None):
            model.zero_grad()
            losses = model.of(model.trunk(x()))
            model.b.requires_grad_(False)
            gs.backward(losses, given, strategy)
            assert model.b.weight.grad is None
            assert model.trunk[0].weight.grad is not None
            model.b.requires_grad_(True)
    rows = by_loss(other.of(other.trunk(x())), list(other.trunk.parameters()))
    expected = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value) @ rows
    assert torch.allclose(
        torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()]), expected
    )


def test_an_empty_parameter_behind_a_compiled_region():
    p, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(0))

    def losses():
        return p.sum() + empty.sum(), -p[0] + empty.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.compile(losses, backend="aot_eager", fullgraph=True)()
    gs.backward(dict(zip("ab", found, strict=True)), [p, empty], "mgda")
    assert p.grad is not None


def test_an_expanded_grad_is_an_error_before_anything_is_written():
    p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    p.grad, q.grad = torch.zeros(3), torch.zeros(1).expand(3)
    surgery = gs.Surgery("mgda", [p, q])
    with pytest.raises(gs.InputError, match="expanded"):
        surgery.backward({"a": (p * q).sum(), "b": -(p + q).sum()})
    assert p.grad.tolist() == [0, 0, 0]
    assert surgery.state_dict()["step"] == 0


def test_features_and_a_strategy_that_keeps_gradients():
    model = Small()
    z = model.trunk(x())
    with pytest.raises(gs.InputError, match="keeps gradients between steps"):
        gs.Surgery("moco", model).backward(model.of(z), features=z)
    assert all(p.grad is None for p in model.parameters())


def test_elements_of_a_stack_reach_what_each_loss_reaches():
    model, other = Small(), Small()
    stacked = torch.stack(list(model.of(model.trunk(x())).values()))
    record = gs.backward({"a": stacked[0], "b": stacked[-1]}, model, "mgda")
    gs.backward(other.of(other.trunk(x())), other, "mgda")
    assert set(record) == {"a+b", "a", "b"}
    assert all(torch.allclose(a, b) for a, b in both(model, other))


def test_a_direction_has_the_layout_of_its_parameter():
    convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    out = convolution(torch.randn(2, 3, 8, 8))
    gs.backward({"a": out.sum(), "b": -out.pow(2).sum()}, convolution, "graddrop")
    assert convolution.weight.grad.stride() == convolution.weight.stride()


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_features_out_of_the_region_that_computed_the_losses(strategy, order):
    """Whichever output they are: no gradient goes from the losses to the features, and nothing may be trained in silence."""
    model = Small()
    data = x()

    def forward(data):
        z = model.trunk(data)
        found = model.of(z)
        outputs = [found["a"], found["b"]]
        outputs.insert(order, z)
        return outputs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = torch.compile(forward, backend="aot_eager", fullgraph=True)(data)
    z = outputs.pop(order)
    with pytest.raises(gs.InputError, match="apart"):
        gs.backward(dict(zip("ab", outputs, strict=True)), model, strategy, features=z)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("first", [True, False])
def test_a_loss_that_comes_from_a_compiled_trunk_beside_the_features(first):
    model = Small()

    def trunk(data):
        z = model.trunk(data)
        extra = model.trunk[0](data).pow(2).mean()
        return (extra, z) if first else (z, extra)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.compile(trunk, backend="aot_eager", fullgraph=True)(x())
    extra, z = found if first else found[::-1]
    with pytest.raises(gs.InputError, match="around them too"):
        gs.backward({**model.of(z), "extra": extra}, model, "sum", features=z)


def test_scores_that_name_nothing():
    model = TwoEncoders()
    with pytest.warns(UserWarning, match=r"none of 'x', 'y' is the modality of a group.*modality="):
        gs.backward(model.losses(), model, "ogm-ge", scores={"x": 2.0, "y": 1.0})
    parts = {"audio": model.audio, "visual": model.visual}
    with pytest.raises(gs.InputError, match=r"unknown modality 'audoi'. Did you mean 'audio'"):
        gs.Surgery("ogm-ge", parts).backward(model.losses(), scores={"audoi": 2.0, "visual": 1.0})


def test_what_belongs_to_the_step_and_a_graph_that_is_gone():
    model = Small()
    with pytest.raises(
        gs.InputError, match=r"weights belongs to the step: surgery.backward\(losses, weights=...\)"
    ):
        gs.Surgery("mgda", model, weights={"a": 1.0})
    with pytest.raises(gs.InputError, match="not its optimizer"):
        gs.Surgery("mgda", torch.optim.SGD(model.parameters()))
    losses = model.of(model.trunk(x()))
    gs.backward(losses, model, "mgda")
    with pytest.raises(gs.InputError, match="freed by an earlier backward pass"):
        gs.backward(losses, model, "mgda")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'mgda'"):
        gs.Surgery("MGDA", model)


@pytest.mark.parametrize("bias", [True, False])
def test_low_memory_and_tapped_layers(bias):
    """The bias by which a pass finds its way to a tapped layer was asked for elsewhere, and the layer got no gradient."""
    found = []
    for settings in ({}, {"memory": "low"}, {"memory": "low", "method": "taps"}):
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {
                "conv": nn.Conv2d(64, 64, 3),
                "wide": nn.Linear(256, 128, bias=bias),
                **{k: nn.Linear(128, 1) for k in "abc"},
            }
        ).double()
        x = torch.randn(4, 64, 4, 4, dtype=F64)
        y = model["wide"](model["conv"](x).flatten(1)).tanh()
        record = gs.backward(
            {k: (model[k](y) - i).pow(2).mean() for i, k in enumerate("abc")},
            model,
            "upgrad",
            **settings,
        )
        found.append(([p.grad for p in model.parameters()], record["a+b+c"].gram))
    for gradients, gram in found[1:]:
        assert np.allclose(gram, found[0][1], rtol=1e-9)
        assert all(
            torch.allclose(a, b, rtol=1e-8, atol=1e-12)
            for a, b in zip(gradients, found[0][0], strict=True)
        )


@pytest.mark.parametrize("name", ["a", "z"])
def test_a_loss_that_is_a_leaf(name):
    p = nn.Parameter(torch.tensor(2.0))
    record = gs.backward({name: p, "b": (p - 5) ** 2}, [p], "upgrad")
    assert list(record) == [f"{min(name, 'b')}+{max(name, 'b')}"]
    assert float(p.grad) == pytest.approx(0.0)


@pytest.mark.parametrize("places", [(0, 1, 2), (-3, -2, -1), (0, -2, 2)])
def test_elements_of_a_stack_from_its_end(places):
    model = nn.ModuleList(nn.Linear(2, 1) for _ in range(3))
    stacked = torch.stack([layer(torch.ones(4, 2)).pow(2).mean() for layer in model])
    record = gs.backward(
        {n: stacked[i] for n, i in zip(("first", "middle", "last"), places, strict=True)},
        model,
        "mgda",
    )
    assert sorted(record) == ["first", "last", "middle"]
    assert all(layer.weight.grad is not None for layer in model)


def test_a_parameter_without_elements_and_low_memory():
    model, empty = (
        nn.Sequential(nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3)),
        nn.Parameter(torch.empty(0)),
    )
    y = model(torch.randn(2, 4, 10)) + empty.sum()
    gs.backward(
        {"a": y.pow(2).mean(), "b": (y - 1).abs().mean(), "c": y.mean()},
        [*model.parameters(), empty],
        "mgda",
        memory="low",
    )
    assert empty.grad.shape == (0,)


@pytest.mark.parametrize("settings", [{"memory": "low"}, {"every": 2}])
def test_a_weight_that_a_loss_cannot_start_from(settings):
    layers = [nn.Parameter(1e-28 * torch.ones(3)) for _ in range(3)]
    surgery = gs.Surgery("fairgrad", layers, **settings)

    def losses():
        return {
            n: sum((p * 1e-30 * (i + 1) * torch.tensor([1.0, i, -i])).sum() for p in layers) * 1e-12
            for i, n in enumerate("abc")
        }

    if "every" in settings:  # the first step solves, and forms gradients
        surgery.backward(losses())
        for p in layers:
            p.grad = None
    with pytest.raises(gs.NonFiniteError, match="is beyond the range of its dtype"):
        surgery.backward(losses())
    assert all(p.grad is None for p in layers)


def test_the_gram_of_a_tapped_weight_alone():
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, gradient):
            return None

    torch.manual_seed(0)
    layer, before = nn.Linear(6, 3, bias=False).double(), nn.Linear(5, 6).double()
    y = layer(before(torch.randn(4, 5, dtype=F64)))
    groups = {"w": [layer.weight], "before": before}
    record = gs.backward(
        {"a": y.pow(2).sum(), "b": Nothing.apply(y).sum() + before.bias.sum()},
        groups,
        "mgda",
        method="taps",
    )
    assert record["w"].gram == pytest.approx(float(layer.weight.grad.pow(2).sum()))


def test_gradients_kept_for_parameters_met_in_several_steps_are_not_mixed():
    trunk, heads = nn.Linear(4, 3), nn.ModuleDict({n: nn.Linear(3, 1) for n in "ab"})

    def losses(names):
        return {n: heads[n](trunk(torch.ones(2, 4))).pow(2).mean() for n in names}

    for first, clear in (("ab", True), ("b", False)):
        surgery, other = gs.Surgery("moco"), gs.Surgery("moco")
        surgery.backward(losses(first))
        surgery.backward(losses("ab"))
        other.load_state_dict(surgery.state_dict())
        if clear:
            other.backward(losses("ab"))
        else:
            with pytest.raises(gs.InputError, match="in different steps"):
                other.backward(losses("ab"))


def test_floors_without_bound():
    with pytest.raises(gs.InputError, match=r"none of them NaN or \+inf"):
        nearest_above([[2.0, 0.5], [0.5, 1.0]], [1.0, 0.0], [np.inf, -np.inf])


def test_one_name_as_two_kinds():
    state = gs.State()
    for kind in ("vector", "pairs", "scalar"):
        bound = state.bind(("a", "b"))
        getattr(bound, kind)("x")
        bound["x"] = {"vector": [1.0, 2.0], "pairs": [[1.0, 2.0], [3.0, 4.0]], "scalar": 5.0}[kind]
        state.adopt(bound)
    again = gs.State.from_state_dict(state.state_dict())
    assert again.bind(("b", "a")).vector("x").tolist() == [2.0, 1.0]
    assert again.bind(("b", "a")).pairs("x").tolist() == [[4.0, 3.0], [2.0, 1.0]]
    assert again.bind(("b", "a")).scalar("x") == 5.0


def test_modules_with_their_own_idea_of_their_parameters():
    class Fewer(nn.Linear):
        def _named_members(self, *args, **kwargs):
            return (pair for pair in super()._named_members(*args, **kwargs) if pair[0] != "bias")

    layer = nn.Linear(2, 2)
    layer.named_parameters = lambda *args, **kwargs: iter(
        [("only", nn.Linear.__getattr__(layer, "weight"))]
    )
    for model, names in ((Fewer(2, 2), ["weight"]), (layer, ["only"])):
        assert [name for name, _, _ in Parameters(model).named().values()] == names

"""Features: hooks on them, names, regions, overflow and parameters beside them."""

import warnings

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders, both
from tests.support.shipped import plain
from tests.support.small import F64, Small, x


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


def test_features_and_a_strategy_that_keeps_gradients():
    model = Small()
    z = model.trunk(x())
    with pytest.raises(gs.InputError, match="keeps gradients between steps"):
        gs.Surgery("moco", model).backward(model.of(z), features=z)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_features_out_of_the_region_that_computed_the_losses(strategy, order):
    """Whichever output they are: no gradient goes from the losses to the features, and nothing may
    be trained in silence.
    """
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

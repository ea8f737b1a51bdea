"""features=: the surgery at a boundary, one pass through the trunk."""

import math

import pytest
import torch

import gradsurgery as gs
from gradsurgery.solvers import min_norm
from tests.support.models import TwoEncoders, by_loss, grads
from tests.support.shared_trunk import F64, SharedTrunk, close, flat_grads


def test_features_weigh_at_the_features_and_pass_once_through_the_trunk():
    model = SharedTrunk()
    losses, z = model.losses()
    at_z = by_loss(losses, [z])
    heads = {
        name: by_loss({name: losses[name]}, list(model.heads[name].parameters()))[0]
        for name in "abc"
    }
    weights = torch.as_tensor(min_norm((at_z @ at_z.T).numpy()).value)
    trunk = weights @ by_loss(losses, list(model.trunk.parameters()))
    record = gs.backward(losses, model, "mgda", features=z)
    assert torch.allclose(torch.as_tensor(record["a+b+c"].weights), weights)
    close(flat_grads(model.trunk.parameters()), trunk)
    for name in "abc":
        close(flat_grads(model.heads[name].parameters()), heads[name])
    assert set(record) == {"a+b+c", "a", "b", "c"}


def test_features_of_two_encoders_are_two_groups():
    model = TwoEncoders()
    torch.manual_seed(0)
    a, v = (
        model.frozen(model.audio(torch.randn(8, 4, dtype=F64))),
        model.visual(torch.randn(8, 5, dtype=F64)),
    )
    losses = {
        "fused": model.fusion(torch.cat([a, v], 1)).exp().mean(),
        "audio": -2 * model.audio_head(a).exp().mean(),
        "visual": model.visual_head(v).pow(2).mean(),
    }
    expected = {}
    for z, encoder, names in (
        (a, model.audio, ("fused", "audio")),
        (v, model.visual, ("fused", "visual")),
    ):
        own = {n: losses[n] for n in names}
        rows = by_loss(own, [z])
        expected[encoder] = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value) @ by_loss(
            own, list(encoder.parameters())
        )
    record = gs.backward(losses, model, "mgda", features={"a": a, "v": v})
    for encoder, found in expected.items():
        close(flat_grads(encoder.parameters()), found)
    assert {"audio+fused", "fused+visual"} <= set(record)
    assert model.frozen.weight.grad is None


@pytest.mark.parametrize("strategy", ["sum", "uw", "mgda", "graddrop", "cagrad", "mmpareto"])
def test_features_with_any_kind_of_strategy_and_existing_grads(strategy):
    model = SharedTrunk()
    losses, z = model.losses()
    surgery = gs.Surgery(strategy, model)
    surgery.backward(losses, features=[z])
    once = grads(model)
    other = SharedTrunk()
    sum(other.losses()[0].values()).backward()
    held = grads(other)
    losses, z = other.losses()
    gs.Surgery(strategy, other).backward(losses, features=[z])
    assert all(
        torch.allclose(a - b, c, atol=1e-12)
        for a, b, c in ((grads(other)[n], held[n], once[n]) for n in once)
    )


def test_features_leave_what_was_not_given_its_plain_sum():
    model, plainly = SharedTrunk(), SharedTrunk()
    losses, z = model.losses()
    gs.backward(losses, [model.trunk[2].weight], "mgda", features=z)
    sum(plainly.losses()[0].values()).backward()
    for name, parameter in model.named_parameters():
        equal = torch.allclose(parameter.grad, plainly.get_parameter(name).grad)
        assert equal == (name != "trunk.2.weight"), name
    model = SharedTrunk()
    losses, z = model.losses()
    gs.backward(losses, [model.trunk[2].weight], "mgda", features=z, others="ignore")
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "trunk.2.weight"
    ]


def test_features_that_cannot_be_used():
    model = SharedTrunk()
    losses, z = model.losses()
    hidden = model.trunk[0](torch.ones(1, 4, dtype=F64))
    both = model.trunk[2](hidden.tanh())
    twice = {"a": both.sum(), "b": (both * hidden[:, :5]).sum()}
    mixed = {"a": both.sum(), "b": both.sum() + model.trunk[2].weight.sum()}
    for given, features, message in (
        (losses, z.detach(), "no graph behind it"),
        (losses, 3.0, "expected a tensor, or a sequence"),
        (losses, [z, 1.0], r"features\[1\]: expected a tensor"),
        (losses, [], "at least one"),
        (losses, [z, z], "the same tensor"),
        (losses, {"h": hidden}, r"features\['h'\] reaches no loss"),
        (twice, [both, hidden], r"features\[0\] depends on features\[1\]"),
        (mixed, both, "through the features and around them"),
    ):
        with pytest.raises(gs.InputError, match=message):
            gs.backward(given, model, "mgda", features=features, retain_graph=True)
    assert all(p.grad is None for p in model.parameters())


def test_features_keep_the_graph_when_asked_to():
    model = SharedTrunk()
    losses, z = model.losses()
    gs.backward(losses, model, "mgda", features=z, retain_graph=True)
    once = grads(model)
    gs.backward(losses, model, "mgda", features=z)
    assert all(torch.allclose(2 * a, b) for a, b in ((once[n], grads(model)[n]) for n in once))


def test_a_gradient_behind_the_features_that_is_not_finite():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    model = SharedTrunk()
    z = model.trunk[2](Broken.apply(model.trunk[0](torch.ones(2, 4, dtype=F64))))
    losses = {"a": z.sum(), "b": -z.pow(2).sum()}
    with pytest.raises(gs.NonFiniteError, match="behind the features"):
        gs.backward(losses, model, "mgda", features=z)
    assert all(p.grad is None for p in model.parameters())

"""What a step is given: forms of losses, weights, and settings that are wrong."""

import math

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads

pytestmark = pytest.mark.quick


def test_weights_apply_to_the_losses_first():
    model = TwoEncoders()
    losses = model.losses()
    weights = {"fused": 2.0, "audio": 0.5, "visual": 3.0}
    for strategy in ("sum", "mgda", "scaled-sum", "mmpareto"):
        model.zero_grad()
        gs.backward(
            {n: weights[n] * loss for n, loss in losses.items()}, model, strategy, retain_graph=True
        )
        expected = grads(model)
        model.zero_grad()
        gs.backward(losses, model, strategy, weights=weights, retain_graph=True)
        for name, gradient in grads(model).items():
            assert gradient is None or torch.allclose(
                gradient, expected[name], rtol=1e-10, atol=1e-14
            )
    in_order = list(losses.values())
    assert (
        gs.backward(in_order, model, weights=[1, 2, 3], retain_graph=True).losses
        == gs.inspect(in_order, model).losses
    )
    for bad in ([1.0, 2.0], {"0": 1.0}, [1.0, math.nan, 1.0], ["x", 1, 2]):
        with pytest.raises(gs.InputError, match="weights"):
            gs.backward(in_order, model, weights=bad, retain_graph=True)


def test_forms_of_losses():
    weight = nn.Parameter(torch.ones(3))
    forms = [
        lambda: list(weight.pow(2)),
        lambda: weight.pow(2),
        lambda: {str(i): x for i, x in enumerate(weight.pow(2))},
    ]
    found = []
    for form in forms:
        weight.grad = None
        record = gs.backward(form(), [weight], "mgda")
        assert record.objectives == ("0", "1", "2")
        found.append(weight.grad.clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda w: [], "at least one"),
        (lambda w: {}, "at least one"),
        (lambda w: w.sum(), "one dimension"),
        (lambda w: [w], "expected a scalar; got shape"),
        (lambda w: [w.sum(), 3.0], "'1'.*float"),
        (lambda w: {"a": w.sum(), "b": w.sum().detach()}, "'b' does not require grad"),
        (lambda w: {1: w.sum()}, "names are strings"),
        (lambda w: "loss", "got str"),
        (lambda w: 5, "got int"),
        (lambda w: [(w.sum() * 1j)], "real floating point"),
    ],
)
def test_bad_losses(losses, message):
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(gs.InputError, match=message):
        gs.backward(losses(weight), [weight])
    assert weight.grad is None


def test_bad_settings():
    model = TwoEncoders()
    for settings, message in (
        ({"nonfinite": "warn"}, "'error'|error, ignore"),
        ({"others": "zero"}, "sum, ignore"),
        ({"seed": -1}, "seed"),
        ({"min_objectives": 0}, "min_objectives"),
    ):
        with pytest.raises(gs.InputError, match=message):
            gs.Surgery("mgda", model, **settings)
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'normalize'"):
        gs.Surgery("mgda", model, normalise="l2")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'pcgrad'"):
        gs.backward(model.losses(), model, "pc-grad")


def test_sparse_gradients_are_a_clear_error():
    embedding = nn.Embedding(4, 2, sparse=True)
    out = embedding(torch.tensor([1, 2]))
    for strategy in ("pcgrad", "mgda"):
        with pytest.raises(gs.InputError, match="sparse=False"):
            gs.backward([out.sum(), out.pow(2).sum()], embedding, strategy, retain_graph=True)
    assert embedding.weight.grad is None
    gs.backward([out.sum(), out.pow(2).sum()], embedding, "sum")
    assert embedding.weight.grad.is_sparse


def test_random_steps_differ_and_repeat():
    model = TwoEncoders()
    first, second = gs.Surgery("random", model, seed=3), gs.Surgery("random", model, seed=3)
    runs = [
        [s.backward(model.losses())["fused"].weights.tolist() for _ in range(3)]
        for s in (first, second)
    ]
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]
    assert (
        gs.Surgery("random", model, seed=4).backward(model.losses())["fused"].weights.tolist()
        != runs[0][0]
    )

"""Gradients of another dtype than their parameter."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.recommender import Recommender, each_with, same, total

needs_grad_dtype = pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="Tensor.grad_dtype came with torch 2.10"
)


class Wide(nn.Module):
    """bfloat16 parameters whose products are formed in float32, as a fused kernel would."""

    def __init__(self, grad_dtype="float32"):
        super().__init__()
        torch.manual_seed(5)
        self.trunk = nn.Parameter(torch.randn(6, 4).bfloat16())
        self.bias = nn.Parameter(torch.randn(4).bfloat16())
        self.head = nn.Parameter(torch.randn(4).bfloat16())
        for p in self.parameters():
            if grad_dtype != "own":
                p.grad_dtype = None if grad_dtype is None else getattr(torch, grad_dtype)

    def losses(self):
        h = Product.apply(self.trunk) + Product.apply(self.bias)
        return {
            "a": h.square().mean(),
            "b": (h - 1).abs().mean(),
            "c": (h * Product.apply(self.head)).tanh().mean() + 1,
        }


class Product(torch.autograd.Function):
    """To float32, with the gradient left in float32 whatever its tensor's dtype."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


GRAD_MODES = [
    {},
    {"memory": "low"},
    {"method": "batched"},
    {"every": 2},
    {"protect": "a"},
    {"min_objectives": 4},
]


@needs_grad_dtype
@each_with(["mgda", "aligned-mtl", "db-mtl", "moco", "graddrop", "sum", "uw"], GRAD_MODES)
def test_gradients_have_the_dtype_that_the_parameter_asks_for(strategy, settings):
    """What float32 parameters of the same values get, without rounding to bfloat16 on the way."""
    model, exact = Wide(), Wide(grad_dtype="own").float()
    surgeries = [gs.Surgery(strategy, m, **settings) for m in (model, exact)]
    for _ in range(2):  # the second step adds to .grad
        for surgery, m in zip(surgeries, (model, exact), strict=True):
            surgery.backward(m.losses())
        for p, q in zip(model.parameters(), exact.parameters(), strict=True):
            assert p.grad.dtype == torch.float32
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7)


@needs_grad_dtype
@pytest.mark.parametrize("grad_dtype", ["float64", "float32", "own", None])
def test_every_grad_dtype_is_written_as_torch_writes_it(grad_dtype):
    for strategy in ("sum", "mgda"):
        model, plain = Wide(grad_dtype), Wide(grad_dtype)
        gs.backward({"a": model.losses()["a"]}, model, strategy)
        plain.losses()["a"].backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if q.grad is not None:
                same(p.grad, q.grad)


@needs_grad_dtype
def test_taps_micro_batches_and_a_scaler_keep_the_grad_dtype():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).bfloat16()
    head = nn.Linear(64, 2)
    for p in layer.parameters():
        p.grad_dtype = torch.float32
    x = torch.randn(4, 64).bfloat16()

    def losses():
        return dict(zip("ab", head(layer(x).float().tanh()).square().mean(0), strict=True))

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    parameters = [*layer.parameters(), *head.parameters()]
    found = []
    for settings, call in (
        ({"method": "gradients"}, lambda s: s.backward(losses())),
        ({"method": "taps"}, lambda s: s.backward(losses())),
        ({}, lambda s: (s.accumulate(losses()), s.combine())),
        ({}, lambda s: s.backward(losses(), scaler=scaler)),
        ({"memory": "low"}, lambda s: s.backward(losses())),
    ):
        for p in parameters:
            p.grad = None
        call(gs.Surgery("mgda", parameters, **settings))
        assert {p.grad.dtype for p in parameters} == {torch.float32}
        found.append([p.grad for p in parameters])
    found[3] = [g / 2 for g in found[3]]
    for other in found[1:]:
        for g, h in zip(other, found[0], strict=True):
            torch.testing.assert_close(g, h, rtol=2e-2, atol=1e-3)
    losses_with_overflow = {name: loss * float("inf") for name, loss in losses().items()}
    for p in parameters:
        p.grad = None
    gs.backward(losses_with_overflow, parameters, "mgda", scaler=scaler)
    assert {p.grad.dtype for p in parameters} == {torch.float32}


@needs_grad_dtype
def test_parameters_behind_the_features_keep_their_form():
    torch.manual_seed(0)
    waves = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
    scale = nn.Parameter(torch.randn(4).bfloat16())
    scale.grad_dtype = torch.float32
    head = nn.Linear(4, 2)
    for given in ([waves, scale, *head.parameters()], [scale, *head.parameters()]):
        waves.grad = scale.grad = None
        features = (torch.ones(5, 3, dtype=torch.complex64) @ waves).abs() * scale.float()
        losses = dict(zip("ab", head(features).square().mean(0), strict=True))
        expected = torch.autograd.grad(total(losses), [waves], retain_graph=True)[0]
        gs.backward(losses, given, "mgda", features=features)
        assert scale.grad.dtype == torch.float32
        assert waves.grad.dtype == torch.complex64
        if len(given) == 3:  # not given: the plain sum
            torch.testing.assert_close(waves.grad, expected)


@needs_grad_dtype
def test_a_sparse_gradient_has_the_grad_dtype_too():
    model = Recommender(dtype=torch.bfloat16)
    model.table.weight.grad_dtype = torch.float32
    gs.backward(model.losses(), model.dense, "mgda")
    assert model.table.weight.grad.is_sparse
    assert model.table.weight.grad.dtype == torch.float32

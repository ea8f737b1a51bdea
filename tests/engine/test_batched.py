"""method="batched": all gradients in two passes, and what cannot be batched."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads
from tests.support.shipped import LEAST, SHIPPED, ready, step


@pytest.mark.parametrize(
    "name",
    [name for name in SHIPPED if name not in LEAST and "cross" not in ready(name, "fused").inputs],
)
def test_equals_one_pass_per_loss(name):
    models = TwoEncoders(), TwoEncoders()
    for model, method in zip(models, ("gradients", "batched"), strict=True):
        surgery = gs.Surgery(ready(name, "fused"), model, method=method)
        for seed in (0, 1):
            model.zero_grad()
            step(surgery, model.losses(seed), lambda model=model: model.losses(2))
    for (key, expected), found in zip(
        grads(models[0]).items(), grads(models[1]).values(), strict=True
    ):
        assert (expected is None) == (found is None), key
        assert expected is None or torch.allclose(expected, found, rtol=1e-9, atol=1e-12), key


class Convolutional(nn.Module):
    """Convolution, norm, attention, dropout, an embedding, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.words = nn.Embedding(5, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.tied = nn.Linear(8, 8)

    def losses(self):
        torch.manual_seed(1)
        z = self.convolution(torch.randn(6, 1, 6, 6)).flatten(1).view(6, 2, 8) + self.words(
            torch.arange(2)
        )
        z = self.tied(self.tied(self.attention(z))).mean(1)
        return {
            "a": F.cross_entropy(z, torch.arange(6)),
            "b": z.pow(2).mean(),
            "c": self.words.weight.pow(2).sum(),
            "d": (z[:, 0] - 1).abs().mean(),
        }


def test_common_layers():
    found = []
    for method in ("gradients", "batched"):
        model = Convolutional()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's: some of these are batched by a loop
            surgery = gs.Surgery("upgrad", model, method=method)
            surgery.backward(model.losses(), retain_graph=True)
            surgery.accumulate(model.losses(), weights={"a": 2.0, "b": 1.0, "c": 1.0, "d": 0.5})
            record = surgery.combine()
        found.append(({key: p.grad for key, p in model.named_parameters()}, record))
    assert found[0][1].keys() == found[1][1].keys()
    for key, gradient in found[0][0].items():
        assert (gradient - found[1][0][key]).norm() <= 1e-5 * gradient.norm() + 1e-7, key


class Reads(torch.autograd.Function):
    """Its backward pass decides by a number, which a batched pass has none of."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient if float(gradient.sum()) > 0 else -gradient


def test_what_cannot_be_batched():
    weight = nn.Parameter(torch.ones(3))
    z = Reads.apply(weight)
    with pytest.raises(gs.InputError, match="batched backward pass failed; use method='gradients'"):
        gs.backward({"a": z.sum(), "b": z.pow(2).sum()}, [weight], "mgda", method="batched")
    assert weight.grad is None
    with pytest.raises(gs.InputError, match="memory"):
        gs.Surgery("mgda", [weight], method="batched", memory="low")
    layer = nn.Linear(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = torch.compile(lambda x: layer(x), backend="aot_eager")(torch.ones(4, 3))
        with pytest.raises(gs.InputError, match="compile"):
            gs.backward({"a": out.sum(), "b": out.pow(2).sum()}, layer, "mgda", method="batched")
    z = weight * 2
    losses = {"a": z.sum(), "b": z.pow(2).sum()}
    gs.backward(losses, [weight], "mgda", method="batched")
    with pytest.raises(gs.InputError, match="freed"):
        gs.backward(losses, [weight], "mgda", method="batched")

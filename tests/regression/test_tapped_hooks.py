"""Taps beside hooks anywhere in the layer."""

import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import gradsurgery as gs
from gradsurgery.gradients.agreement import compared
from gradsurgery.gradients.rules.linear import Linear
from tests.support.tapped import gradients, tapped


class Clamped(nn.Module):
    """Two layers and two heads; `how` says where the middle layer's gradient is cut to a tenth, and
    whether at every forward pass anew.
    """

    def __init__(self, how, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(6, 8), nn.Linear(8, 8, bias=bias)
        self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in "ab"})
        self.how = how
        tenth = lambda *args: tuple(None if g is None else g / 10 for g in args[-2])  # noqa: E731
        if how == "register_backward_hook":
            self.middle.register_backward_hook(
                lambda module, inputs, outputs: tenth(inputs, outputs)
            )
        elif how == "register_full_backward_hook":
            self.middle.register_full_backward_hook(
                lambda module, inputs, outputs: tenth(inputs, outputs)
            )
        elif how == "hook on the weight":
            self.middle.weight.register_hook(lambda g: g / 10)
        elif how == "parametrized":
            parametrizations.weight_norm(self.middle)
        elif how == "a parametrization with a hook":
            parametrize.register_parametrization(self.middle, "weight", Through())

    def forward(self, x):
        h = self.first(x).tanh()
        weight, bias, how = self.middle.weight, self.middle.bias, self.how
        if how.startswith("hook on W.t()"):
            transposed = weight.t()
            transposed.register_hook(lambda g: g / 10)
            h = h.detach() if how.endswith("first layer") else h
            return torch.addmm(bias, h, transposed) if bias is not None else h @ transposed
        y = self.middle(h)
        node = y.grad_fn
        transposed = node.next_functions[-1][0]
        if how == "hook on the layer's node":
            node.register_hook(lambda given, _: tuple(None if g is None else g / 10 for g in given))
        elif how == "prehook on the layer's node":
            node.register_prehook(lambda given: tuple(g / 10 for g in given))
        elif how == "hook on the node of W.t()":
            transposed.register_hook(lambda given, _: tuple(g / 10 for g in given))
        elif how == "prehook on the node of W.t()":
            transposed.register_prehook(lambda given: tuple(g / 10 for g in given))
        elif how == "hook on the output":
            y.register_hook(lambda g: g / 10)
        return y

    def losses(self, names="ab"):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
        z = self(x).tanh()
        return {name: (self.heads[name](z) - i).pow(2).mean() for i, name in enumerate(names)}


class Through(nn.Module):
    def forward(self, weight):
        weight = weight.view_as(weight)
        weight.register_hook(lambda g: g / 10)
        return weight


HOOKS = [
    "register_backward_hook",
    "register_full_backward_hook",
    "hook on the weight",
    "parametrized",
    "a parametrization with a hook",
    "hook on W.t()",
    "hook on W.t(), first layer",
    "hook on the layer's node",
    "prehook on the layer's node",
    "hook on the node of W.t()",
    "prehook on the node of W.t()",
    "hook on the output",
]


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", HOOKS)
def test_a_hook_anywhere_is_in_the_tapped_gradient(how, bias):
    found = []
    for method in ("taps", "gradients"):
        model = Clamped(how, bias)
        surgery = gs.Surgery("mgda", model, method=method)
        for _ in range(3):
            model.zero_grad()
            record = surgery.backward(model.losses())
        found.append((gradients(model), record["a+b"].gram))
        model = Clamped(how, bias)
        gs.backward(model.losses(), model, "mgda", method=method)
        for name, gradient in found[0][0].items():
            torch.testing.assert_close(
                gradients(model)[name],
                gradient,
                rtol=1e-4,
                atol=1e-7,
                msg=f"one step, {how}: {name}",
            )
    for name, gradient in found[1][0].items():
        torch.testing.assert_close(
            found[0][0][name], gradient, rtol=1e-4, atol=1e-7, msg=f"{how}: {name}"
        )
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)


def test_hooks_that_come_and_go_between_steps_are_seen():
    models = Clamped("none"), Clamped("none")
    surgeries = [
        gs.Surgery("mgda", model, method=method)
        for model, method in zip(models, ("taps", "gradients"), strict=True)
    ]
    for how, taken in (
        ("none", True),
        ("hook on the node of W.t()", False),
        ("none", True),
        ("hook on the layer's node", False),
        ("hook on W.t()", False),
    ):
        for model, surgery in zip(models, surgeries, strict=True):
            model.zero_grad()
            model.how = how
            surgery.backward(model.losses())
        assert ("middle.weight" in tapped(models[0], models[0].losses())) == taken
        for name, gradient in gradients(models[1]).items():
            torch.testing.assert_close(gradients(models[0])[name], gradient, msg=f"{how}: {name}")


def test_a_tapped_layer_is_compared_with_autograd_once(monkeypatch):
    """In the passes of the first step, each loss by itself; no later step forms its gradient."""
    model = Clamped("none")
    asked = []
    grad = torch.autograd.grad

    def watched(outputs, inputs, *args, **kwargs):
        asked.append(any(t is model.middle.weight for t in inputs))
        return grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    surgery = gs.Surgery("mgda", model, method="taps")
    for _ in range(3):
        surgery.backward(model.losses())
    assert asked == [True] * 2 + [False] * 4
    asked.clear()
    gs.backward(model.losses(), model, "mgda", method="taps")  # all its hooks can be listed
    assert asked == [False] * 2


def test_what_a_comparison_forms_is_gone_before_the_next_pass(monkeypatch):
    """Otherwise the first step would need as much memory as one that taps nothing."""
    model = Clamped("none")
    formed, left = [], []
    grad = torch.autograd.grad

    def watched(outputs, inputs, *args, **kwargs):
        left.append(sum(g() is not None for g in formed))
        found = grad(outputs, inputs, *args, **kwargs)
        pairs = zip(inputs, found, strict=True)
        formed.extend(weakref.ref(g) for t, g in pairs if t is model.middle.weight)
        return found

    monkeypatch.setattr(torch.autograd, "grad", watched)
    gs.Surgery("mgda", model, method="taps").backward(model.losses())
    assert len(formed) == 2
    assert left == [0, 0]


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_agrees_with_autograd_is_found_to_agree(dtype, scale):
    generator = torch.Generator().manual_seed(0)
    x, delta = (
        torch.randn(32, 96, generator=generator).to(dtype),
        (scale * torch.randn(32, 64, generator=generator)).to(dtype),
    )
    right = (delta.double().T @ x.double()).to(dtype)
    for gradient, agrees in (
        (right, True),
        (right / 10, False),
        (right.clamp(-scale, scale), False),
        (torch.zeros_like(right), False),
    ):
        expected = ([], ["w"]) if agrees else (["w"], [])
        assert compared({"w": delta}, {"w": gradient}, {"w": Linear(x)}) == expected
    layers = {"w": Linear(x)}
    assert compared({"w": delta * float("nan")}, {"w": right}, layers) == ([], [])
    assert compared({"w": 0 * delta}, {"w": 0 * right}, layers) == ([], [])  # zeros tell nothing

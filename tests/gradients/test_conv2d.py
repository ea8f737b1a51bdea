"""Convolutions whose weight gradients are not formed: exact, taken where counting says so."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs
from gradsurgery.gradients.factored import find, multiplications, pays
from tests.support.layers import check_layer, layer_of, once
from tests.support.tapped import gradients, tapped

F64 = torch.float64
# examples, channels, outputs, height, width, and what the convolution is given beside them
SHAPES = {
    "square": (2, 3, 4, 7, 7, {"kernel_size": 3}),
    "padded": (2, 3, 4, 6, 5, {"kernel_size": 3, "padding": 1}),
    "strides": (3, 2, 5, 9, 8, {"kernel_size": 3, "stride": (2, 3), "padding": (0, 2)}),
    "dilated": (2, 3, 2, 11, 9, {"kernel_size": (3, 2), "dilation": (2, 3)}),
    "all of them": (
        2, 2, 3, 12, 9, {"kernel_size": (2, 3), "stride": 2, "padding": (1, 3), "dilation": (3, 2)},
    ),
    "one by one": (2, 4, 3, 5, 4, {"kernel_size": 1}),
    "same": (1, 3, 4, 6, 6, {"kernel_size": 3, "padding": "same", "bias": False}),
    "reflected": (1, 3, 4, 6, 6, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    "the whole image": (4, 3, 6, 4, 4, {"kernel_size": 4, "bias": False}),
    "a remainder at the edge": (2, 2, 2, 8, 8, {"kernel_size": 3, "stride": 4}),
}  # fmt: skip


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", SHAPES)
def test_factors_make_the_gradients_that_autograd_forms(case, form):
    torch.manual_seed(0)
    examples, channels, outputs, height, width, options = SHAPES[case]
    convolution = nn.Conv2d(channels, outputs, **options).to(F64, memory_format=form)
    images = torch.randn(examples, channels, height, width, dtype=F64)
    check_layer(convolution, images.to(memory_format=form).requires_grad_())


class Net(nn.Module):
    """Convolutions down to few places, of widths for which factors pay, and three heads."""

    def __init__(self, variant="plain", dtype=F64):
        super().__init__()
        torch.manual_seed(0)
        self.variant = variant
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(
            16,
            48,
            3,
            stride=2,
            padding=1,
            bias=variant != "no bias",
            groups=1 + (variant == "groups"),
        )
        self.last = nn.Conv2d(48, 48, 3, padding=1)
        self.heads = nn.ModuleDict({name: nn.Linear(48, 1) for name in "abc"})
        if variant == "tied":
            self.middle = nn.Conv2d(16, 16, 3, stride=2, padding=1)
            self.again = nn.Conv2d(16, 48, 1)
        self.to(dtype)

    def losses(self):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(1, 3, 8, 8, generator=generator, dtype=F64).to(self.first.weight.dtype)
        h = self.middle(self.first(x).tanh())
        if self.variant == "tied":
            h = self.again(F.conv2d(h.tanh(), self.middle.weight, padding=1))
        if self.variant == "hook on the output":
            h.register_hook(lambda g: g / 10)
        if self.variant == "hook on the node":
            h.grad_fn.register_hook(
                lambda given, _: tuple(None if g is None else g / 10 for g in given)
            )
        if self.variant == "prehook on the node":
            h.grad_fn.register_prehook(lambda given: tuple(g / 10 for g in given))
        z = self.last(h.tanh()).mean((2, 3)).tanh()
        found = {
            name: (head(z) - i).pow(2).mean() for i, (name, head) in enumerate(self.heads.items())
        }
        if self.variant == "penalty":
            found["b"] = found["b"] + self.middle.weight.pow(2).sum()
        if self.variant == "penalty on the bias":
            found["b"] = found["b"] + self.middle.bias.pow(2).sum()
        return found


# variant -> whether the middle convolution may be tapped
VARIANTS = {
    "plain": True, "no bias": True, "hook on the output": True, "prehook on the node": True,
    "hook on the node": False, "hook on the weight": False, "groups": False, "penalty": False,
    "tied": False, "hook on the bias": False, "penalty on the bias": False, "frozen bias": True,
}  # fmt: skip


def made(variant, dtype=F64):
    model = Net(variant, dtype)
    if variant == "hook on the weight":
        model.middle.weight.register_hook(lambda g: g / 10)
    if variant == "hook on the bias":
        model.middle.bias.register_hook(lambda g: g / 10)
    if variant == "frozen bias":
        model.middle.bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(("variant", "taken"), VARIANTS.items())
def test_only_a_single_use_without_hooks_is_tapped(variant, taken):
    model = made(variant)
    found = tapped(model, model.losses())
    assert ("middle.weight" in found) == taken
    assert "last.weight" in found


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("strategy", ["upgrad", "mmpareto(rescale='tensor')", "imtl-g"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_directions_equal_those_from_gradients(variant, strategy, dtype):
    found = []
    for method in ("taps", "gradients"):
        model = made(variant, dtype)
        surgery = gs.Surgery(strategy, model, method=method)
        for _ in range(3):
            model.zero_grad()
            record = surgery.backward(model.losses())
        found.append((gradients(model), record["a+b+c"].gram))
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    for name, gradient in found[1][0].items():
        difference = float((found[0][0][name] - gradient).norm())
        assert difference <= rounding * float(gradient.norm()) + 1e-300, name
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=rounding)


def test_neither_weight_nor_bias_of_a_tapped_convolution_is_asked_for(monkeypatch):
    """Autograd would form the one with the other."""
    model = Net()
    surgery = gs.Surgery("mgda", model, method="taps")
    surgery.backward(model.losses())  # here both are, for comparison
    asked = []
    grad = torch.autograd.grad

    def watched(outputs, inputs, *args, **kwargs):
        asked.extend(id(t) for t in inputs)
        return grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    surgery.backward(model.losses())
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[key] for key in asked if key in names}
    assert found == {"first.weight", "first.bias"} | {n for n in names.values() if "heads" in n}


def test_a_tapped_convolution_is_compared_with_autograd_once(monkeypatch):
    model = Net()
    asked = []
    grad = torch.autograd.grad

    def watched(outputs, inputs, *args, **kwargs):
        asked.append(any(t is model.last.weight for t in inputs))
        return grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    surgery = gs.Surgery("mgda", model, method="taps")
    for _ in range(2):
        surgery.backward(model.losses())
    assert asked == [True] * 3 + [False] * 3


# examples, channels, outputs, places of the output, kernel, objectives -> whether factors pay
PAYS = [
    (8, 512, 512, 16, 3, 4, True),
    (8, 512, 512, 16, 3, 2, True),
    (8, 256, 256, 49, 3, 4, True),
    (8, 256, 256, 49, 3, 2, False),
    (8, 1024, 256, 16, 1, 2, True),
    (16, 256, 256, 16, 3, 2, False),
    (32, 64, 64, 1024, 3, 8, False),
    (8, 3, 64, 12544, 7, 8, False),
    (64, 512, 512, 49, 3, 8, False),
]


@pytest.mark.parametrize("case", PAYS, ids=str)
def test_counting_decides_with_every_method(case):
    """The counts were held beside times on a CPU, whose ratios they gave within a tenth."""
    examples, channels, outputs, places, kernel, n, expected = case
    side = int(places**0.5)
    with torch.device("meta"):
        images = torch.empty(examples, channels, side, side, requires_grad=True)
        _, match, _ = layer_of(nn.Conv2d(channels, outputs, kernel, padding=kernel // 2), images)
    rule, _ = find(match.node, once)
    rows, entries = examples * places, outputs * channels * kernel**2
    assert match.shape == (rows, outputs, entries // outputs)
    formed, factored = multiplications(match, n)
    assert formed >= n * rows * entries
    assert (factored < formed) == expected
    assert pays(rule, match, n, False, False) == pays(rule, match, n, True, False) == expected


@pytest.mark.parametrize("method", ["auto", "taps"])
def test_large_images_are_not_tapped(method):
    model = nn.Sequential(nn.Conv2d(16, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3))
    for size, taken in ((32, set()), (4, {"0.weight", "2.weight"})):
        out = model(torch.randn(2, 16, size, size, requires_grad=True))
        losses = {"a": out.pow(2).mean(), "b": -out.mean(), "c": out.exp().mean()}
        assert tapped(model, losses, method) == taken


def test_low_memory_takes_patches_of_at_most_half_a_gradient_although_it_costs_more():
    for examples, taken in ((2, True), (3, False)):
        images = torch.randn(examples, 256, 8, 8, requires_grad=True)
        out = nn.Conv2d(256, 256, 1)(images)
        rule, match = find(out.grad_fn, once)
        assert not pays(rule, match, 2, False, False)
        assert pays(rule, match, 2, False, True) == taken


OTHERS = {
    "transposed": (nn.ConvTranspose2d(4, 3, 2), (2, 4, 6, 6)),
    "two groups": (nn.Conv2d(4, 4, 3, groups=2), (2, 4, 6, 6)),
    "channel by channel": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 6, 6)),
    "one dimension": (nn.Conv1d(4, 3, 2), (2, 4, 6)),
    "three dimensions": (nn.Conv3d(4, 3, 2), (2, 4, 6, 6, 6)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_convolutions_are_not_matched(kind):
    convolution, shape = OTHERS[kind]
    given = torch.randn(shape, requires_grad=True)
    assert find(convolution(given).grad_fn, once) is None


def test_a_first_convolution_is_left_to_autograd():
    """Only its bias's gradient could be asked for, and oneDNN forms the weight's with that."""
    for images, found in ((torch.randn(1, 4, 2, 2), False), (torch.randn(1, 4, 2, 2), True)):
        out = nn.Conv2d(4, 3, 2)(images.requires_grad_(found))
        assert (find(out.grad_fn, once) is not None) == found

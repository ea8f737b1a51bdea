"""A rule of one's own: one file's worth of code, and nothing else has to know the layer."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradsurgery as gs
from gradsurgery.gradients import factored
from gradsurgery.gradients.factored import (
    Layer,
    Match,
    Rule,
    leaf_of,
    multiplications,
    register,
    saved,
)
from tests.support.layers import check_layer
from tests.support.tapped import gradients, tapped

pytestmark = pytest.mark.quick


@dataclass(frozen=True, eq=False)
class Patches(Layer):
    """A one-dimensional convolution with stride 1, as a user might write a rule for it."""

    signals: Tensor  # [examples, channels, length]
    width: int

    def matrix(self, dtype):
        windows = self.signals.to(dtype).unfold(2, self.width, 1)  # [B, C, places, width]
        return windows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)

    def rows(self, delta):
        return delta.transpose(1, 2).flatten(0, 1)

    def inner(self, dtype):
        x = self.matrix(dtype)
        return x @ x.T

    def project(self, vector):
        x = self.matrix(vector.dtype)
        return x @ vector, x.square().sum(1)

    def gradient(self, delta):
        found = self.rows(delta).T @ self.matrix(delta.dtype)
        return found.view(delta.shape[1], -1, self.width)


def match(node, uses):
    weight = leaf_of(node.next_functions[1], uses)
    plain = (tuple(node._saved_stride), tuple(node._saved_padding), node._saved_groups)
    if weight is None or weight.ndim != 3 or plain != ((1,), (0,), 1):
        return None
    examples, out, places = node._input_metadata[0].shape
    shape = examples * places, out, weight.numel() // out
    bias = getattr(node.next_functions[2][0], "variable", None)
    return Match(node, weight, shape, node.next_functions[0], bias, (node.register_hook,))


def read(match, unpack):
    signals = saved(match.node, "input", unpack)
    return None if signals is None else Patches(signals.detach(), match.weight.shape[2])


@pytest.fixture
def conv1d(monkeypatch):
    # without the rules that ship: one of them may know this layer by now
    rules = {name: [] for name in factored.RULES}
    monkeypatch.setattr(factored, "RULES", rules)
    monkeypatch.setattr("gradsurgery.engine.taps.RULES", rules)
    return register(Rule(("ConvolutionBackward0",), match, cost=multiplications, read=read))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv1d(3, 8, 3), nn.Conv1d(8, 6, 2)
        self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in "ab"})
        self.double()

    def losses(self):
        x = torch.randn(4, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        z = self.second(self.first(x).tanh()).mean(2)
        return {
            name: (head(z) - i).pow(2).mean() for i, (name, head) in enumerate(self.heads.items())
        }


def test_a_rule_of_ones_own_is_used_and_exact(conv1d):
    model, plain = Net(), Net()
    assert tapped(model, model.losses()) == {"first.weight", "second.weight"}
    records = [
        gs.Surgery("upgrad", m, method=method).backward(m.losses())
        for m, method in ((model, "taps"), (plain, "gradients"))
    ]
    np.testing.assert_allclose(records[0]["a+b"].gram, records[1]["a+b"].gram, rtol=1e-12)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-11, atol=1e-14)


def test_it_holds_what_a_rule_has_to_hold(conv1d):
    check_layer(nn.Conv1d(3, 4, 3).double(), torch.randn(2, 3, 8, dtype=torch.float64))


def test_a_rule_that_is_wrong_gives_way_to_autograd(conv1d, monkeypatch):
    """What its factors make is compared with the gradient of the first step."""
    project = Patches.project
    monkeypatch.setattr(
        Patches, "project", lambda self, v: (2 * project(self, v)[0], project(self, v)[1])
    )
    monkeypatch.setattr(Patches, "inner", lambda self, dtype: 0 * Patches.matrix(self, dtype))
    model, plain = Net(), Net()
    gs.Surgery("upgrad", model, method="taps").backward(model.losses())
    gs.Surgery("upgrad", plain, method="gradients").backward(plain.losses())
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-11, atol=1e-14)


def test_without_its_rule_the_layer_is_materialised():
    model = Net()
    assert tapped(model, model.losses()) == set()


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_hold_it_too(bias):
    check_layer(nn.Linear(3, 6, bias=bias).double(), torch.randn(5, 3, dtype=torch.float64))

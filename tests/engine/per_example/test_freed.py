"""What a step made is freed when it ends, and waits for no garbage collection."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs


def tensors():
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


@pytest.mark.parametrize("strategy", ["upgrad", "mgda"])
@pytest.mark.parametrize("single", [True, False])
def test_no_tensor_outlives_its_step(strategy, single):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    x, labels, surgery = torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 2, 0]), gs.Surgery(strategy)
    mixtures = None if single else {"first": torch.ones(4), "second": torch.arange(4.0)}

    def step():
        model.zero_grad()
        losses = F.cross_entropy(model(x), labels, reduction="none")
        surgery.backward(gs.PerExample(losses, mixtures))

    gc.collect()
    gc.disable()
    try:
        step()
        step()
        before = tensors()
        for _ in range(5):
            step()
        assert tensors() == before
    finally:
        gc.enable()

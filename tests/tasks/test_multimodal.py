"""Tasks of several modalities: what their measures are, and what they leave as it is."""

import pytest
import torch

from gradsurgery.tasks.cg_mnist import GrayAndColourNet
from gradsurgery.tasks.multimodal import scores

pytestmark = pytest.mark.quick


def test_measures_of_modalities_move_no_running_statistics():
    """cg-mnist's encoders begin with BatchNorm, of which a second forward would move the mean."""
    torch.manual_seed(0)
    net = GrayAndColourNet()
    batch = torch.rand(8, 1, 28, 28), torch.rand(8, 3, 28, 28), torch.arange(8)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    found = scores(net, batch, "ogm-ge", ("gray", "colour"))
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    logits = net(*batch[:2])  # in training, as the measure was taken
    assert not all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    right = logits["gray"].softmax(1)[torch.arange(8), torch.arange(8)].sum().item()
    assert found["gray"] == pytest.approx(right, rel=1e-5)

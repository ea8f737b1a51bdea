"""Products of gradients with a step, also where float32 does not hold them."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_products_out_of_the_range_of_float32_are_summed_in_float64(scale):
    """Gradients and steps of one scale, whose products float32 does not hold."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    surgery = gs.Surgery("sum", [weight])
    rows = scale * torch.tensor([[1.0, 0.5, 0.0], [-3.0, 1.0, 2.0]])
    record = surgery.step(list(rows @ weight), optimizer, guard="correct")
    group = next(iter(record.values()))
    assert group.corrected > 0.1
    change = (rows.double() @ weight.detach().double() / scale**2).numpy()
    assert np.allclose(group.change / scale**2, change, rtol=1e-6, atol=1e-7)
    # u = -0.1 (g₁ + g₂) raises the first by 0.125; 0.1 g₁ less of it leaves -1.15 + 0.25
    assert np.allclose(change, [0.0, -0.9], atol=1e-6)

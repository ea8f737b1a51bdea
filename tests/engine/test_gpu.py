"""The same steps on a CUDA device; skipped, with the reason, where there is none."""

import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads
from tests.support.shipped import LEAST, SHIPPED, direction, ready, step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class OnDevice(TwoEncoders):
    """The two encoders, with losses moved to the parameters' device."""

    def losses(self, seed=0, rows=8):
        device, dtype = self.fusion.weight.device, self.fusion.weight.dtype
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(rows, k, generator=generator, dtype=dtype).to(device) for k in (4, 5))
        a, v = self.frozen(self.audio(x)), self.visual(y)
        fused = self.fusion(torch.cat([a, v], 1))
        return {
            "fused": fused.pow(2).mean(),
            "audio": (self.audio_head(a) + 3).pow(2).mean(),
            "visual": (self.visual_head(v) - 1).pow(2).mean(),
        }


# torch draws other numbers on other devices
COMPARABLE = [
    name for name in SHIPPED if name not in LEAST and "generator" not in ready(name).inputs
]


@pytest.mark.parametrize("name", COMPARABLE)
def test_cuda_equals_cpu(name):
    host, device = OnDevice(), OnDevice().cuda()
    expected, found = (
        step(
            gs.Surgery(ready(name, "fused"), model),
            model.losses(),
            lambda model=model: model.losses(1),
        )
        for model in (host, device)
    )
    assert list(expected) == list(found)
    for parameter, gradient in grads(host).items():
        other = grads(device)[parameter]
        assert (gradient is None) == (other is None)
        assert gradient is None or torch.allclose(gradient, other.cpu(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_directions_stay_on_the_device(dtype):
    rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    for name in SHIPPED:
        out = direction(ready(name), rows)
        assert out.device == rows.device
        assert out.dtype == dtype

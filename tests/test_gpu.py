"""The same steps on a CUDA device; skipped, with the reason, where there is none."""

import pytest
import torch
from models import TwoEncoders, grads

import gradsurgery as gs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class OnDevice(TwoEncoders):
    """The two encoders, with losses moved to the parameters' device."""

    def losses(self, seed=0, rows=8):
        device, dtype = self.fusion.weight.device, self.fusion.weight.dtype
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(rows, k, generator=generator, dtype=dtype).to(device) for k in (4, 5))
        a, v = self.frozen(self.audio(x)), self.visual(y)
        fused = self.fusion(torch.cat([a, v], 1))
        return {"fused": fused.pow(2).mean(), "audio": -self.audio_head(a).sum(), "visual": (self.visual_head(v) - 1).pow(2).mean()}


@pytest.mark.parametrize("name", gs.strategy_names())
def test_cuda_equals_cpu(name):
    host, device = OnDevice(), OnDevice().cuda()
    expected, found = gs.backward(host.losses(), host, name), gs.backward(device.losses(), device, name)
    assert list(expected) == list(found)
    for parameter, gradient in grads(host).items():
        other = grads(device)[parameter]
        assert (gradient is None) == (other is None)
        assert gradient is None or torch.allclose(gradient, other.cpu(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_directions_stay_on_the_device(dtype):
    rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    out = gs.get_strategy("mgda")(rows)
    assert out.device == rows.device
    assert out.dtype == dtype

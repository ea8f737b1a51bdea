"""What a step asks of a device: Gram matrices and losses in one transfer, no other number."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gradsurgery as gs
from gradsurgery.engine import checks, directions
from tests.support.models import TwoEncoders
from tests.support.shipped import LEAST, SHIPPED, ready, step


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: a number read out, or a mask turned into
    places.
    """

    names = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name().split("::")[1].split(".")[0] in self.names:
            self.found.append(function.name())
        return function(*args, **(kwargs or {}))


def transfers(monkeypatch):
    found = []

    def counted(groups, values=(), *more, **total):
        groups = list(groups)
        if groups or values:
            found.append((len(groups), len(values)))
        return real(groups, values, *more, **total)

    real = checks.to_host
    for module in (checks, directions):
        monkeypatch.setattr(module, "to_host", counted)
    return found


@pytest.mark.parametrize(
    "settings", [{}, {"nonfinite": "ignore"}, {"method": "taps"}, {"method": "gradients"}], ids=str
)
@pytest.mark.parametrize(
    "name",
    [name for name in SHIPPED if name not in LEAST and "cross" not in ready(name, "fused").inputs],
)
def test_one_transfer_and_no_number_besides(name, settings, monkeypatch):
    model = TwoEncoders()
    surgery = gs.Surgery(ready(name, "fused"), model, **settings)
    step(surgery, model.losses())
    model.zero_grad()
    losses = model.losses(1)
    found = transfers(monkeypatch)
    with Reads() as reads:
        step(surgery, losses)
    assert reads.found == []
    # the values of the losses come before the weights that are made of them; a direction made on
    # the device is checked there
    second = (
        not surgery.strategy.needs_gradients and "losses" in surgery.strategy.inputs
    ) or "rows" in surgery.strategy.inputs
    assert len(found) <= (2 if second else 1)


@pytest.mark.parametrize("name", ["sum", "mean", "constant", "random"])
def test_nothing_is_asked_for_where_nothing_is_looked_at(name, monkeypatch):
    model = TwoEncoders()
    surgery = gs.Surgery(ready(name, "fused"), model, nonfinite="ignore")
    found = transfers(monkeypatch)
    losses = model.losses()
    with Reads() as reads:
        record = surgery.backward(losses)
    assert reads.found == []
    assert found == []
    assert record.losses == {o: loss.item() for o, loss in losses.items()}


@pytest.mark.parametrize("memory", ["auto", "low"])
def test_features_and_low_memory_take_a_second_transfer_for_what_they_compute_last(
    memory, monkeypatch
):
    model = TwoEncoders()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    a, v = model.audio(x), model.visual(y)
    losses = {
        "fused": model.fusion(torch.cat([a, v], 1)).pow(2).mean(),
        "audio": model.audio_head(a).mean(),
        "visual": model.visual_head(v).mean(),
    }
    found = transfers(monkeypatch)
    with Reads() as reads:
        gs.backward(losses, model, "mgda", features=[a, v], memory=memory, method="gradients")
    assert reads.found == []
    assert len(found) <= (2 if memory == "auto" else 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "nonfinite", "times"),
    [
        ("mgda", "error", 1),
        ("upgrad", "error", 1),
        ("scaled-sum", "error", 1),
        ("sum", "error", 1),
        ("sum", "ignore", 0),
    ],
)
def test_the_device_is_waited_for_once(name, nonfinite, times):
    import warnings

    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)
    ).cuda()
    surgery = gs.Surgery(name, model, nonfinite=nonfinite)
    for _ in range(2):
        out = model(torch.randn(32, 64, device="cuda"))
        losses = {str(i): out[:, i].pow(2).mean() for i in range(4)}
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                surgery.backward(losses)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchronizing" in str(w.message)]) == times

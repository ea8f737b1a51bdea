"""Loss scales: the strategy does not see them, an overflow skips the step."""

import math

import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders, both, grads, same
from tests.support.shared_trunk import F64
from tests.support.shipped import plain


@pytest.mark.parametrize(
    "strategy",
    [
        "sum",
        "scaled-sum",
        "mgda",
        "imtl-g",
        "config",
        "nash-mtl",
        "fairgrad",
        "uw",
        "famo",
        "graddrop",
        "moco",
        "db-mtl",
    ],
)
def test_a_scaler_multiplies_and_the_strategy_does_not_see_it(strategy):
    """Strategies that are not homogeneous too, and with an accumulation."""
    model, other, third = TwoEncoders(), TwoEncoders(), TwoEncoders()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    surgery, plainly, gathered = (gs.Surgery(strategy, m) for m in (model, other, third))
    for seed in range(3):
        for m in (model, other, third):
            m.zero_grad()
        record = surgery.backward(model.losses(seed), scaler=scaler)
        wanted = plainly.backward(other.losses(seed))
        gathered.accumulate(third.losses(seed), scaler=scaler)
        gathered.combine()
        assert record.losses == wanted.losses
        for a, b in both(model, other):
            assert torch.allclose(a, 2**12 * b, rtol=1e-7)
        for a, b in both(model, third):
            assert torch.allclose(a, b, rtol=1e-7)
        for group in wanted:
            if wanted[group].gram is not None:
                assert record[group].gram == pytest.approx(wanted[group].gram, rel=1e-9)


@pytest.mark.parametrize("where", ["loss", "one head", "accumulate"])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw", "moco", "cagrad", "imtl-g", "nash-mtl"])
def test_an_overflow_anywhere_skips_every_optimizer(strategy, where):
    model = TwoEncoders()
    surgery = gs.Surgery(strategy, model)
    surgery.backward(model.losses(1))
    model.zero_grad()
    state, scaler = plain(surgery.state_dict()), torch.amp.GradScaler("cpu", init_scale=8.0)
    losses = model.losses()
    if where == "one head":
        hidden = model.audio_head(model.audio(torch.ones(2, 4, dtype=F64)).detach())
        losses["audio"] = losses["audio"] + (hidden.sum() - hidden.sum().detach()) * math.inf
    else:
        losses["audio"] = losses["audio"] * math.inf
    if where == "accumulate":
        surgery.accumulate(model.losses(2), scaler=scaler)
        surgery.accumulate(losses, scaler=scaler)
        record = surgery.combine()
    else:
        record = surgery.backward(losses, scaler=scaler)
    assert record.overflow
    assert "overflow" in str(record)
    assert record.objectives == tuple(losses)
    assert math.isfinite(record.losses["visual"])
    assert not math.isfinite(record.losses["audio"])
    assert {"audio+fused", "fused+visual"} <= set(record)
    assert (
        record["audio+fused"].gram
        is record["audio+fused"].weights
        is record["audio+fused"].conflicts
        is None
    )
    assert plain(surgery.state_dict()) == state
    optimizers = [
        torch.optim.SGD(part.parameters(), lr=1.0)
        for part in (model.audio, model.visual, model.fusion, model.audio_head, model.visual_head)
    ]
    before = [p.detach().clone() for p in model.parameters()]
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_scaler_that_is_off_is_no_scaler_and_what_is_none_is_said_to_be():
    model, other = TwoEncoders(), TwoEncoders()
    gs.backward(model.losses(), model, "mgda", scaler=torch.amp.GradScaler("cpu", enabled=False))
    gs.backward(other.losses(), other, "mgda")
    assert same(grads(model), grads(other))
    losses = model.losses()
    losses["audio"] = losses["audio"] * math.nan
    with pytest.raises(gs.NonFiniteError):
        gs.backward(losses, model, "mgda", scaler=torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(gs.InputError, match=r"expected a torch.amp.GradScaler; got float"):
        gs.backward(model.losses(), model, "mgda", scaler=65536.0)


def test_a_scale_that_changes_between_micro_batches_is_an_error():
    model = TwoEncoders()
    surgery, scaler = gs.Surgery("mgda", model), torch.amp.GradScaler("cpu", init_scale=8.0)
    surgery.accumulate(model.losses(0), scaler=scaler)
    scaler.update(4.0)
    surgery.accumulate(model.losses(1), scaler=scaler)
    with pytest.raises(gs.InputError, match=r"changed between micro-batches \(8, 4\)"):
        surgery.combine()
    assert all(p.grad is None for p in model.parameters())

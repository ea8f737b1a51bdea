"""Loops in every precision: autocast, scalers, parameters in half precision."""

import torch
from torch import nn

import gradsurgery as gs
from tests.support.loops.base import (
    INPUT,
    LOSS_BASE,
    OUT,
    Linear,
    backward,
    by_hand,
    close,
    decided,
    flat,
    loop,
    values,
)
from tests.support.shipped import plain


@loop("float32")
def float32(strategy):
    model = Linear()
    losses = model.losses()
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("float64")
def float64(strategy):
    model = Linear(torch.float64)
    losses = model.losses()
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)), 1e-9)


def rounding(strategy, half):
    """Weights of losses go through the half precision pass, as those of a weighted sum do; weights
    of gradients come after it.
    """
    return half if strategy.acts_on == "losses" else 2e-5


@loop("autocast, bfloat16")
def autocast_bfloat16(strategy):
    model = Linear()
    with torch.autocast("cpu", torch.bfloat16):
        losses = {name: loss.float() for name, loss in model.losses().items()}
    backward(gs.Surgery(strategy, model), losses)
    close(
        flat(model.parameters()),
        decided(strategy, by_hand(), values(losses)),
        rounding(strategy, 1e-2),
    )


@loop("autocast, float16, with a GradScaler")
def autocast_float16(strategy):
    model = Linear()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer, scaler = (
        torch.optim.SGD(model.parameters(), lr=0.5),
        torch.amp.GradScaler("cpu", init_scale=2.0**10),
    )
    with torch.autocast("cpu", torch.float16):
        losses = model.losses()
    assert losses["a"].dtype == torch.float16
    record = backward(gs.Surgery(strategy, model), losses, scaler=scaler)
    assert not record.overflow
    expected = decided(strategy, by_hand(), values(losses))
    close(flat(model.parameters()) / 2**10, expected, rounding(strategy, 1e-3))
    scaler.step(optimizer)
    scaler.update()
    moved = torch.cat(
        [
            (b - p.detach()).double().reshape(-1)
            for b, p in zip(before, model.parameters(), strict=True)
        ]
    )
    close(moved, 0.5 * expected, rounding(strategy, 1e-3))


@loop("an overflow under a GradScaler: the step is skipped and the scale halved")
def overflow(strategy):
    model = Linear()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer, scaler = (
        torch.optim.SGD(model.parameters(), lr=0.5),
        torch.amp.GradScaler("cpu", init_scale=2.0**10),
    )
    surgery = gs.Surgery(strategy, model)

    def step(factor):
        optimizer.zero_grad()
        losses = model.losses()
        losses["b"] = losses["b"] * factor
        record = backward(surgery, losses, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        return record

    state = plain(surgery.state_dict())
    assert step(torch.inf).overflow
    assert all(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))
    assert scaler.get_scale() == 2**9
    assert plain(surgery.state_dict()) == state
    assert not step(1.0).overflow
    moved = torch.cat(
        [
            (b - p.detach()).double().reshape(-1)
            for b, p in zip(before, model.parameters(), strict=True)
        ]
    )
    expected = decided(
        strategy, by_hand(), (LOSS_BASE.double() + reference_values(before)).tolist()
    )
    close(moved, 0.5 * expected, 1e-4)


def reference_values(parameters):
    """What the losses are above their base, by hand."""
    weight, bias = (p.double() for p in parameters)
    return OUT.double() @ (weight @ INPUT.double().mean(0) + bias)


@loop("bfloat16 parameters")
def bfloat16(strategy):
    model = Linear(torch.bfloat16)
    losses = model.losses()
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)), 2e-2)


@loop("parameters of several dtypes")
def mixed_dtypes(strategy):
    model = Linear()
    model.layer.bias = nn.Parameter(model.layer.bias.detach().double())
    hidden = (INPUT @ model.layer.weight.T).double() + model.layer.bias
    losses = model.losses(hidden=hidden)
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))

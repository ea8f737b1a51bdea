"""Loops over graphs as people write them: compiled, checkpointed, recurrent, tied, frozen."""

import warnings

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradsurgery as gs
from tests.support.loops.base import (
    INPUT,
    LOSS_BASE,
    NAMES,
    OUT,
    Linear,
    backward,
    by_hand,
    close,
    decided,
    flat,
    loop,
    reference,
    values,
    whole,
)

_compiled = {}


def compiled(backend, what, fullgraph):
    """A compiled model, or model and losses; one for all strategies, as compiling is slow."""
    key = backend, what, fullgraph
    if key not in _compiled:
        model = Linear()
        if what == "model":
            call = torch.compile(model, backend=backend, fullgraph=fullgraph)
            made = lambda: model.losses(hidden=call(INPUT))  # noqa: E731
        else:

            def all_of_it(x):
                hidden = model(x)
                return [
                    base + (hidden @ out).mean()
                    for out, base in ((OUT[0], 4.0), (OUT[1], 5.0), (OUT[2], 6.0))
                ]

            call = torch.compile(all_of_it, backend=backend, fullgraph=fullgraph)
            made = lambda: dict(zip(NAMES, call(INPUT), strict=True))  # noqa: E731
        _compiled[key] = model, made
    return _compiled[key]


def with_compiled(strategy, backend):
    for what in ("model", "model and losses"):
        for fullgraph in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's compiler about its own parts
                model, made = compiled(backend, what, fullgraph)
                model.zero_grad()
                losses = made()
                backward(gs.Surgery(strategy, model), losses, made)
            close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("torch.compile, aot_eager: the model, and model and losses, also with fullgraph=True")
def compile_aot_eager(strategy):
    with_compiled(strategy, "aot_eager")


@loop("torch.compile, inductor: the same")
def compile_inductor(strategy):
    with_compiled(strategy, "inductor")


@loop("torch.compile of the whole step, `surgery.backward` inside")
def compile_step(strategy):
    model = Linear()
    surgery = gs.Surgery(strategy, model)

    def step(x):
        hidden = model(x)
        losses = {
            name: base + (hidden @ out).mean()
            for name, out, base in (("a", OUT[0], 4.0), ("b", OUT[1], 5.0), ("c", OUT[2], 6.0))
        }
        backward(surgery, losses)
        return losses

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = torch.compile(step, backend="aot_eager")(INPUT)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("activation checkpointing, use_reentrant=False")
def checkpointing(strategy):
    model = Linear()
    losses = model.losses(hidden=checkpoint(model, INPUT, use_reentrant=False))
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("activation checkpointing, use_reentrant=True", error="use_reentrant=False")
def checkpointing_reentrant(strategy):
    model = Linear()
    losses = model.losses(
        hidden=checkpoint(model, INPUT.clone().requires_grad_(), use_reentrant=True)
    )
    backward(gs.Surgery(strategy, model), losses)


class Net(nn.Module):
    """A body, and three losses of its output."""

    def __init__(self, body, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = body()

    def losses(self, x):
        out = self.body(x)
        out = out[0] if isinstance(out, tuple) else out
        return {
            n: base + (out[..., :3] * weights).tanh().mean()
            for n, weights, base in zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
        }


@loop("LSTM")
def lstm(strategy):
    model = Net(lambda: nn.LSTM(4, 5, batch_first=True))
    whole(model, model.losses(INPUT[None].repeat(2, 1, 1)), strategy)


@loop("BatchNorm and dropout: the solve and the update see one mask")
def batch_norm_and_dropout(strategy):
    model = Net(
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 5)
        )
    )
    whole(model, model.losses(INPUT), strategy)
    assert int(model.body[1].num_batches_tracked) == 1  # one forward pass, no more


@loop(
    "a sparse embedding among the parameters given",
    error=lambda s: "sparse" if s.needs_gradients else None,
)
def sparse_embedding(strategy):
    model = Net(lambda: nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 3)))
    table, places = model.body[0].weight, torch.tensor([1, 2, 4])
    losses = model.losses(places)
    model.body[0].sparse = False
    rows = reference(model.losses(places), list(model.parameters()))
    model.body[0].sparse = True
    backward(gs.Surgery(strategy, model), losses)
    table.grad = table.grad.to_dense()
    sizes = tuple(p.numel() for p in model.parameters())
    close(flat(model.parameters()), decided(strategy, rows, values(losses), sizes))


@loop("complex parameters, as pairs of reals")
def complex_parameters(strategy):
    weight = nn.Parameter(torch.tensor([1 + 0.5j, 0.5 - 1j, 0.25 + 0j]))
    parts = zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
    losses = {
        name: base + (weight * out).real.sum() + (weight * out.flip(0)).imag.sum()
        for name, out, base in parts
    }
    rows = torch.stack([torch.stack([out, out.flip(0)], 1).reshape(-1) for out in OUT.double()])
    backward(gs.Surgery(strategy, [weight]), losses)
    found = torch.view_as_real(weight.grad).reshape(-1).double()
    close(found, decided(strategy, rows, values(losses), (6,)))


@loop("tied weights")
def tied_weights(strategy):
    model = Net(lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    model.body[2].weight = model.body[0].weight
    whole(model, model.losses(INPUT), strategy)


@loop("a module used twice")
def used_twice(strategy):
    model = Net(lambda: nn.Sequential(*[nn.Linear(4, 4), nn.Tanh()]))
    model.body = nn.Sequential(*model.body, *model.body)
    whole(model, model.losses(INPUT), strategy)


@loop("a penalty on the weights as one of the losses")
def penalty(strategy):
    model = Linear(torch.float64)
    losses = model.losses()
    losses["c"] = sum(p.pow(2).sum() for p in model.parameters())
    rows = by_hand()
    rows[2] = 2 * torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, rows, values(losses)), 1e-9)


@loop("frozen and unused parameters")
def frozen_and_unused(strategy):
    model = Linear()
    model.before, model.unused = nn.Linear(4, 4).requires_grad_(False), nn.Linear(2, 2)
    with torch.no_grad():
        model.before.weight.copy_(torch.eye(4))
        model.before.bias.zero_()
    losses = model.losses(model.before(INPUT))
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.layer.parameters()), decided(strategy, by_hand(), values(losses)))
    assert all(p.grad is None for part in (model.before, model.unused) for p in part.parameters())


@loop("a loss that does not require grad", error="does not require grad")
def detached_loss(strategy):
    model = Linear()
    losses = model.losses()
    losses["b"] = losses["b"].detach()
    backward(gs.Surgery(strategy, model), losses)


@loop("the same tensor as two losses")
def one_tensor_twice(strategy):
    model = Linear()
    losses = model.losses()
    losses["c"] = losses["a"]
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand()[[0, 1, 0]], values(losses)), 1e-4)


@loop("losses on several devices", error="move them to one device")
def several_devices(strategy):
    model = Linear()
    losses = model.losses()
    losses["b"] = losses["b"].to("meta")
    backward(gs.Surgery(strategy, model), losses)


@loop("create_graph=True", error="not differentiable")
def create_graph(strategy):
    model = Linear()
    backward(gs.Surgery(strategy, model), model.losses(), create_graph=True)

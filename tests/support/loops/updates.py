"""Loops of accumulation, optimizers, replayed weights and features."""

import warnings

import torch
from torch import nn

import gradsurgery as gs
from tests.support.loops.base import (
    INPUT,
    LOSS_BASE,
    NAMES,
    OUT,
    SCORES,
    Linear,
    backward,
    by_hand,
    close,
    decided,
    flat,
    loop,
    takes,
    values,
)


@loop("surgery per micro-batch: `.grad` accumulates as in torch")
def per_micro_batch(strategy):
    model = Linear()
    expected = torch.zeros(15, dtype=torch.float64)
    for part in INPUT.split(2):
        losses = model.losses(part, 0.5)
        backward(gs.Surgery(strategy, model), losses)
        expected = expected + decided(strategy, by_hand(part, 0.5), values(losses))
    close(flat(model.parameters()), expected, 1e-4)


def several_batches(strategy):
    return "of several batches" if "cross" in strategy.inputs else None


@loop("accumulate over micro-batches, then combine: the large batch", error=several_batches)
def accumulate(strategy):
    model, large = Linear(), Linear()
    surgery = gs.Surgery(strategy, model)
    for part in INPUT.split(1):
        if "cross" in strategy.inputs:
            surgery.accumulate([model.losses(part, 0.25)] * 3)
        surgery.accumulate(model.losses(part, 0.25))
    surgery.combine(scores=SCORES)
    losses = large.losses()
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))
    backward(gs.Surgery(strategy, large), losses)
    close(flat(model.parameters()), flat(large.parameters()))


@loop("gradient clipping, a scheduler, zero_grad(set_to_none=False)")
def clipping(strategy):
    model = Linear(torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for factor in (0.5, 0.25):
        optimizer.zero_grad(set_to_none=False)
        before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
        losses = model.losses()
        backward(gs.Surgery(strategy, model), losses)
        expected = decided(strategy, by_hand(), values(losses))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert (
            float(norm) == torch.as_tensor(expected.norm()).item()
            or abs(float(norm) / float(expected.norm()) - 1) < 1e-6
        )
        optimizer.step()
        schedule.step()
        moved = before - torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        close(moved, factor * expected * min(1.0, 0.1 / (float(norm) + 1e-6)), 1e-6)


OPTIMIZERS = {
    name: kind
    for name in dir(torch.optim)
    if isinstance(kind := getattr(torch.optim, name), type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
}
SPECIAL = {
    "SparseAdam": "sparse gradients only",
    "LBFGS": "a loop of its own",
    "Muon": "matrices only",
}


@loop("every optimizer of torch.optim, with parameter groups")
def optimizers(strategy):
    for name, kind in OPTIMIZERS.items():
        if name in ("SparseAdam", "LBFGS"):
            continue
        mine, theirs = Linear(), Linear()
        if name == "Muon":  # for matrices
            made = [kind([m.layer.weight], lr=0.1) for m in (mine, theirs)]
        else:
            made = [
                kind([{"params": [m.layer.weight]}, {"params": [m.layer.bias], "lr": 0.01}], lr=0.1)
                for m in (mine, theirs)
            ]
        losses = mine.losses()
        backward(gs.Surgery(strategy, mine), losses)
        found = decided(strategy, by_hand(), values(losses)).float()
        theirs.layer.weight.grad, theirs.layer.bias.grad = (
            found[:12].reshape(3, 4),
            found[12:].clone(),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for optimizer in made:
                optimizer.step()
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


@loop(
    "closures (LBFGS)",
    note="the line search sees a value of the losses whose gradient is another one: "
    "leave `line_search_fn=None`",
)
def closures(strategy):
    model = Linear(torch.float64)
    before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
    surgery = gs.Surgery(strategy, model)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=1)
    first = values(model.losses())
    calls = []

    def closure():
        optimizer.zero_grad()
        losses = model.losses()
        calls.append(backward(surgery, losses))
        return sum(losses.values())

    optimizer.step(closure)
    assert calls
    expected = decided(strategy, by_hand(), first)
    moved = before - torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    close(moved, 0.5 * expected / max(1.0, float(expected.abs().sum())), 1e-6)  # LBFGS's first step


@loop(
    "every=3: solved once, its weights used twice more",
    error=lambda s: (
        "leave every=1" if takes("rows", "block_grams", "cross", "observed")(s) else None
    ),
)
def every(strategy):
    model = Linear(torch.float64)
    surgery = gs.Surgery(strategy, model, every=3)
    kept = None
    for step, x in enumerate((INPUT, 2 * INPUT, INPUT.flip(1), INPUT)):
        for p in model.parameters():
            p.grad = None
        losses = model.losses(x)
        record = backward(surgery, losses)
        (group,) = record.groups.values()
        assert group.replayed == (step in (1, 2))
        if step == 0:
            close(flat(model.parameters()), decided(strategy, by_hand(x), values(losses)), 1e-9)
            kept = torch.as_tensor(group.weights)
        elif step < 3:
            close(flat(model.parameters()), by_hand(x).T @ kept, 1e-9)
    assert record.step == 3


def not_at_features(strategy):
    state = gs.State()
    if "state" in strategy.inputs and "cross" not in strategy.inputs:
        decided(strategy, by_hand(), LOSS_BASE.tolist(), state=state)
    return "keeps gradients between steps" if state.has_rows else several_batches(strategy)


@loop("weights at the features, one pass through the trunk", error=not_at_features)
def features(strategy):
    trunk, x = nn.Linear(4, 3, dtype=torch.float64), INPUT.double()
    z = trunk(x)
    losses = {
        name: base + (z @ out.double()).mean()
        for name, out, base in zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
    }
    at_features = torch.stack(
        [out.double().repeat(4, 1).reshape(-1) / 4 for out in OUT]
    )  # dLᵢ/dz by hand, [3, 4 * 3]
    backward(gs.Surgery(strategy, trunk), losses, features=z)
    decision = decided(strategy, at_features, values(losses), (12,)).reshape(4, 3)
    close(
        flat(trunk.parameters()), torch.cat([(decision.T @ x).reshape(-1), decision.sum(0)]), 1e-9
    )

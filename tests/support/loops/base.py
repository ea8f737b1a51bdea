"""What a loop is checked with: a model whose gradients are known by hand, and the list."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import gradsurgery as gs
from tests.support.shipped import direction, ready

NAMES = ("a", "b", "c")
# everything is a small multiple of a power of two, so that products are exact in half precision too
OUT = torch.tensor([[1.0, 0.5, 0.0], [-0.5, 1.0, 0.25], [0.25, -1.0, 1.0]])
INPUT = torch.tensor(
    [[1.0, 0.5, -0.5, 0.25], [0.5, 1.0, 0.5, -0.25], [1.5, -0.5, 0.25, 0.5], [1.0, 1.0, -0.25, 0.5]]
)
SCORES = {"a+b+c": 2.0, "other": 1.0}
LOSS_BASE = torch.tensor([4.0, 5.0, 6.0])


class Linear(nn.Module):
    """Three losses Lᵢ = baseᵢ + mean over the batch of ⟨oᵢ, Wx + b⟩: dLᵢ/dW = oᵢ x̄ᵀ and dLᵢ/db =
    oᵢ, whatever W and b are.
    """

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.copy_(
                torch.tensor(
                    [[0.5, -0.25, 0.25, 1.0], [0.25, 0.5, -0.5, 0.5], [-0.5, 0.25, 0.5, -0.25]]
                )
            )
            self.layer.bias.copy_(torch.tensor([0.5, -0.25, 0.25]))
        self.to(dtype)

    def forward(self, x):
        return self.layer(x)

    def losses(self, x=INPUT, share=1.0, hidden=None):
        hidden = self(x.to(self.layer.weight.dtype)) if hidden is None else hidden
        return {
            name: share * base + share * (hidden @ out.to(hidden)).mean()
            for name, out, base in zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
        }


def by_hand(x=INPUT, share=1.0):
    """J [3, 15] in float64, the tensors in the order of the parameters."""
    mean = x.double().mean(0)
    return share * torch.stack(
        [torch.cat([torch.outer(o, mean).reshape(-1), o]) for o in OUT.double()]
    )


def values(losses):
    return [float(loss.detach()) for loss in losses.values()]


def decided(strategy, rows, losses, splits=(12, 3), step=0, **given):
    """The direction by the strategy alone, called on rows."""
    return direction(
        strategy,
        rows,
        losses=losses,
        objectives=NAMES,
        group="a+b+c",
        splits=splits,
        step=step,
        scores=SCORES,
        **given,
    )


def backward(surgery, losses, again=None, **arguments):
    """One step; strategies that take several batches get the same one three times."""
    if "cross" in surgery.strategy.inputs:
        fresh = again or (lambda: losses)
        retained = again is None and not arguments.get("retain_graph")
        return surgery.backward(
            [losses, fresh(), fresh()], **arguments, **({"retain_graph": True} if retained else {})
        )
    return surgery.backward(losses, scores=SCORES, **arguments)


def flat(parameters):
    return torch.cat([p.grad.double().reshape(-1) for p in parameters])


def close(found, expected, tolerance=2e-5):
    expected = expected.double()
    assert torch.isfinite(found).all()
    assert float((found - expected).norm()) <= tolerance * float(expected.norm()) + 1e-12, (
        found,
        expected,
    )


def reference(losses, parameters, scale=1.0):
    """J [n, d] from one torch.autograd.grad per loss, the graph kept."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(
            loss, parameters, torch.full_like(loss, scale), retain_graph=True, allow_unused=True
        )
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).double().reshape(-1)
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
        )
    return torch.stack(rows) / scale


def whole(model, losses, strategy, tolerance=2e-5, **arguments):
    """One step against the strategy on per-loss gradients of the same graph.

    All losses reach all parameters of the model.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = reference(losses, parameters)
    backward(gs.Surgery(strategy, model), losses, **arguments)
    close(
        flat(parameters),
        decided(strategy, rows, values(losses), tuple(p.numel() for p in parameters)),
        tolerance,
    )


@dataclass(frozen=True)
class Loop:
    """One loop of the table."""

    title: str
    run: Callable[[gs.Strategy], None]
    note: Callable[[gs.Strategy], str | None]
    error: Callable[[gs.Strategy], str | None]

    def outcome(self, name):
        """ "yes", or what the note or the error says."""
        strategy = ready(name, "a")
        if found := self.error(strategy):
            return "error", found
        found = self.note(strategy)
        return ("note", found) if found else ("yes", "")


REGISTERED: dict[str, Loop] = {}


def loop(title, note=None, error=None):
    """Register a loop; note and error are a text or a function of the strategy."""

    def always(text):
        return text if callable(text) else lambda strategy: text

    def put(run):
        REGISTERED[run.__name__] = Loop(title, run, always(note), always(error))
        return run

    return put


def takes(*inputs):
    """Whether a strategy takes one of these inputs."""
    return lambda strategy: bool(set(inputs) & strategy.inputs)

"""A model with sizes that do not divide, trained whole or sharded; what ranks compare of it."""

import hashlib

import torch
from torch import nn

import gradsurgery as gs

STEPS = 5
ROWS = 24


class Model(nn.Module):
    """A trunk of two layers, of which all three losses and two of them take something.

    Args:
        width: of the first layer: 9 over 4 ranks are shards of 3, 3, 3 and 0 rows.
        fault: multiplies the losses in the step in which it is set; for errors.
    """

    def __init__(self, width=9):
        super().__init__()
        self.first, self.second = nn.Linear(6, width), nn.Linear(width, 8)
        self.a, self.b = nn.Linear(8, 2), nn.Linear(8, 2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x, scale=1.0):
        z = torch.tanh(self.first(x))
        h = torch.tanh(self.second(z))
        return {
            "a": scale * (self.a(h) - x[:, :2]).pow(2).mean(),
            "b": (self.b(h) + x[:, 1:3]).pow(2).mean(),
            "c": (z.mean(1) - 0.1).pow(2).mean(),
        }


def batch(step):
    return torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(step))


def train(model, strategy, part=lambda x: x, settings=None, step=None, optimizer=None):
    """Five steps of Adam; gives the last record."""
    surgery = gs.Surgery(strategy, model, **(settings or {}))
    optimizer = (optimizer or torch.optim.Adam)(model.parameters(), lr=0.02)
    for k in range(STEPS):
        optimizer.zero_grad()
        record = (step or plain_step)(surgery, model, part(batch(k)))
        optimizer.step()
    return record


def plain_step(surgery, model, x):
    return surgery.backward(model(x))


def alone(strategy, width=9, settings=None, step=None, change=lambda model: None, **more):
    """The model as one process trains it on the joined batch, and the last record."""
    model = Model(width)
    change(model)
    record = train(model, strategy, settings={"process_group": None, **(settings or {})}, step=step)
    return model, record


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def compared(model, record, expected):
    """The largest differences from one process, and what has to be the same bits on all ranks."""
    other, theirs = expected
    found = [whole(p.detach()) for p in model.parameters()]
    wanted = [p.detach() for p in other.parameters()]
    error = max((a - b).abs().max().item() for a, b in zip(found, wanted, strict=True))
    values = max(abs(record.losses[o] - theirs.losses[o]) for o in theirs.losses)
    grams = [
        abs(group.gram - theirs[name].gram).max() / abs(theirs[name].gram).max()
        for name, group in record.items()
        if group.gram is not None
    ]
    assert list(record) == list(theirs), (list(record), list(theirs))
    bits = b"".join(t.contiguous().numpy().tobytes() for t in found)
    decided = repr([(name, group.weights) for name, group in record.items()])
    said = hashlib.sha256(bits + decided.encode() + repr(record.losses).encode()).hexdigest()
    return {"error": error, "losses": values, "gram": max(grams, default=0.0), "bits": said}


def check(found, tolerance=1e-5):
    """What `compared` gave on every rank: near one process, and alike bit for bit."""
    assert all(one["error"] <= tolerance for one in found), found
    assert all(one["losses"] <= tolerance for one in found), found
    assert all(one["gram"] <= 10 * tolerance for one in found), found
    assert len({one["bits"] for one in found}) == 1

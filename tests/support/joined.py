"""Models whose losses are means over examples, so that ranks can have parts of a batch.

`trained` is a loop on one part, or on the joined batch; `apart` says how far ranks are from it.
"""

import torch
import torch.distributed as dist
from torch import nn

import gradsurgery as gs
from tests.support.shipped import plain, ready

EXAMPLES = 12  # of a joined batch
SCORES = {"audio+fused": 2.0, "fused+visual": 1.0, "a+b+c": 1.5, "a+b": 0.5}


class Tasks(nn.Module):
    """A trunk and three heads."""

    names = "abc"

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5))
        self.heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in self.names})
        self.to(dtype)

    def forward(self, x):
        z = self.trunk(x)
        return {name: head(z) for name, head in self.heads.items()}

    def losses(self, seed, rows, forward=None):
        x, y = numbers(seed, 4, 3, dtype=self.heads["a"].weight.dtype)
        out = (forward or self)(x[rows])
        return {n: (out[n][:, 0] - y[rows, i]).pow(2).mean() for i, n in enumerate(out)}


class Encoders(nn.Module):
    """Two encoders, a head of both, and one of each."""

    names = ("fused", "audio", "visual")

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.audio = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.visual = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.heads = nn.ModuleDict({"fused": nn.Linear(11, 1), "audio": nn.Linear(6, 1)})
        self.heads["visual"] = nn.Linear(5, 1)
        self.to(dtype)

    def forward(self, x):
        a, v = self.audio(x[:, :4]), self.visual(x[:, 4:])
        both = {"fused": torch.cat([a, v], 1), "audio": a, "visual": v}
        return {name: self.heads[name](z) for name, z in both.items()}

    def losses(self, seed, rows, forward=None):
        x, y = numbers(seed, 7, 3, dtype=self.heads["audio"].weight.dtype)
        out = (forward or self)(x[rows])
        return {n: (out[n][:, 0] - y[rows, i]).pow(2).mean() for i, n in enumerate(out)}


def numbers(seed, *widths, dtype):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(EXAMPLES, width, generator=generator).to(dtype) for width in widths]


def part(rank, world):
    """The rows of a rank: as many as the others', or one more."""
    return list(range(rank, EXAMPLES, world))


def trained(kind, strategy, rows, steps=5, forward=None, count=None, **settings):
    """What five steps of Adam leave: parameters, state and records."""
    model = kind()
    torch.manual_seed(1000 + (dist.get_rank() if dist.is_initialized() else 77))
    wrapped = forward(model) if forward else model
    chosen = ready(strategy, objective=model.names[0]) if isinstance(strategy, str) else strategy
    surgery = gs.Surgery(chosen, wrapped if forward else model, **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    records = []
    for step in range(steps):
        optimizer.zero_grad()
        losses = model.losses(step, rows, wrapped if forward else None)
        given = {"scores": SCORES} if "scores" in chosen.inputs else {}
        if "cross" in chosen.inputs:
            losses = [losses, *(model.losses(100 * k + step, rows) for k in (1, 2))]
        record = surgery.backward(losses, count=count, **given)
        optimizer.step()
        if "observed" in chosen.inputs:
            with torch.no_grad():
                surgery.observe(model.losses(step, rows, wrapped if forward else None))
        records.append((record.losses, {name: group.weights for name, group in record.items()}))
    return found_in(model, surgery, records)


def found_in(model, surgery, records):
    parameters = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    said = [
        (losses, {n: None if w is None else w.tolist() for n, w in weights.items()})
        for losses, weights in records
    ]
    return parameters, plain(surgery.state_dict()), said


def on_world(rank, kind, cases, settings):
    """Each case on this rank's part of the batches: what it leaves, or what it raises."""
    rows = part(rank, dist.get_world_size())
    group = dist.group.WORLD
    return [trained(kind, c, rows, process_group=group, **settings) for c in cases]


def apart(ranks, one):
    """How far the ranks' parameters are from one process's, which they share bit for bit."""
    first = ranks[0]
    for other in ranks[1:]:
        assert torch.equal(first[0], other[0])
        assert first[1] == other[1]
        assert first[2] == other[2]
    assert abs(first[0]).max() < 100
    return ((first[0] - one[0]).abs().max() / one[0].abs().max()).item()

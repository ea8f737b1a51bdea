"""A task in the protocol that trains in a moment: two modalities, a fused and two own losses."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradsurgery.tasks import Metric, Problem

PERCENT = Metric("accuracy", unit="%", chance=50)
METRICS = {"fused": PERCENT, "audio": PERCENT, "face": Metric("error", higher=False)}


class Net(nn.Module):
    """An encoder per modality, a head each and a fused one."""

    def __init__(self):
        super().__init__()
        self.audio, self.face = nn.Linear(2, 3), nn.Linear(2, 3)
        self.heads = nn.ModuleDict(
            {"fused": nn.Linear(6, 2), "audio": nn.Linear(3, 2), "face": nn.Linear(3, 2)}
        )

    def forward(self, x):
        audio, face = self.audio(x[:, :2]), self.face(x[:, 2:])
        given = {"fused": torch.cat([audio, face], 1), "audio": audio, "face": face}
        return {name: self.heads[name](features) for name, features in given.items()}


def drawn(count, generator):
    x = torch.randn(count, 4, generator=generator)
    return {"x": x, "y": (x.sum(1) > 0).long()}


def losses(model, batch):
    return {name: cross_entropy(z, batch["y"]) for name, z in model(batch["x"]).items()}


def scores(model, batch, strategy):
    found = {name: loss.item() for name, loss in losses(model, batch).items()}
    return {"audio": found["audio"], "face": found["face"]}


def figures(model, examples):
    right = {n: (z.argmax(1) == examples["y"]) for n, z in model(examples["x"]).items()}
    found = {name: 100 * x.float().mean() for name, x in right.items()}
    return {**found, "face": 1 - found["face"].item() / 100}


def two_modalities(data_root, seed, **settings):
    """The problem of a seed; the test data are the same for all."""
    generator = torch.Generator().manual_seed(seed)
    train = [drawn(16, generator) for _ in range(4)]
    splits = {
        "validation": drawn(64, generator),
        "test": drawn(64, torch.Generator().manual_seed(99)),
    }
    given = {
        "model": Net,
        "optimizer": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        "batches": lambda: train,  # ends after four, and is begun again
        "losses": losses,
        "evaluate": lambda model, split: figures(model, splits[split]),
        "metrics": METRICS,
        "alone": {"audio": ["audio"], "joint": ["fused"]},
        "scores": scores,
    }
    return Problem(**{**given, **settings})

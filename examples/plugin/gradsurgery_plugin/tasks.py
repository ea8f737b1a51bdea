"""ring: points in the plane, two questions about each, on one trunk."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from gradsurgery.tasks import Problem, task

QUESTIONS = ("right", "outside")


class Net(nn.Module):
    """A shared trunk, and a head per question."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 32), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(32, 1) for name in QUESTIONS})

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        features = self.trunk(points)
        return {name: head(features)[:, 0] for name, head in self.heads.items()}


def drawn(count, generator):
    """Points, and the answers: is it right of the middle, is it outside of the unit circle?"""
    points = torch.randn(count, 2, generator=generator)
    answers = points[:, 0] > 0, points.norm(dim=1) > 1
    return points, *(answer.float() for answer in answers)


def losses(model, batch):
    points, *answers = batch
    logits = model(points)
    return {
        name: binary_cross_entropy_with_logits(logits[name], answer)
        for name, answer in zip(QUESTIONS, answers, strict=True)
    }


def accuracy(model, examples):
    points, *answers = examples
    logits = model(points)
    return {
        name: 100 * ((logits[name] > 0) == (answer > 0.5)).float().mean().item()
        for name, answer in zip(QUESTIONS, answers, strict=True)
    }


@task("ring", epochs=4, batch=32, lr=(0.03, 0.3), primary="outside", delta=1.0)
def ring(data_root=None, seed=0):
    """Points of the plane: is one right of the middle, and is it outside of the unit circle?"""
    generator = torch.Generator().manual_seed(seed)
    return Problem(
        train=drawn(1024, generator),
        validation=drawn(512, generator),
        test=drawn(1024, torch.Generator().manual_seed(1000)),
        model=Net,
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
        losses=losses,
        metrics=accuracy,
        better="higher",
        chance=50.0,
        figure="accuracy in %",
    )

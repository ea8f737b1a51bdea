"""toy: two objectives of two parameters with a curved valley.

Methods differ in whether they reach the Pareto front at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gradsurgery.tasks.problem import Batch, Problem
from gradsurgery.tasks.task import task

PAPER = "Liu et al. 2021, arXiv:2110.14048; Navon et al. 2022, arXiv:2202.01017"


@dataclass(frozen=True)
class Toy:
    """One version of the toy.

    Attributes:
        scale: what the first objective is multiplied by.
        starts: where runs begin.
        steps: how many of Adam's steps at 1e-3 the papers take.
    """

    scale: float
    starts: tuple[tuple[float, float], ...]
    steps: int

    def losses(self, x: Tensor) -> Tensor:
        """L₁ and L₂ [..., 2] at points [..., 2]."""
        x1, x2 = x[..., 0], x[..., 1]
        f1 = torch.log(torch.clamp((0.5 * (-x1 - 7) - torch.tanh(-x2)).abs(), min=5e-6)) + 6
        f2 = torch.log(torch.clamp((0.5 * (-x1 + 3) + torch.tanh(-x2) + 2).abs(), min=5e-6)) + 6
        q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
        q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
        c1, c2 = torch.clamp(torch.tanh(0.5 * x2), min=0), torch.clamp(torch.tanh(-0.5 * x2), min=0)
        return torch.stack([self.scale * (f1 * c1 + q1 * c2), f2 * c1 + q2 * c2], -1)

    def front(self, count: int = 200) -> tuple[Tensor, Tensor]:
        """Points of the Pareto set [count, 2], and their losses [count, 2].

        x₁ goes from −7 to 7; x₂ is where both losses fall no further.
        """
        x1 = torch.linspace(-7, 7, count, dtype=torch.float64)
        x = torch.stack([x1, torch.full_like(x1, FLOOR)], 1)
        return x, self.losses(x)

    def distance(self, x: Tensor) -> Tensor:
        """How far points [..., 2] lie from the Pareto set."""
        nearest = torch.stack([x[..., 0].clamp(-7, 7), torch.full_like(x[..., 1], FLOOR)], -1)
        away: Tensor = torch.linalg.vector_norm(x - nearest, dim=-1)
        return away


FLOOR = -8.3552  # x₂ on the front: there tanh(x₂/2) flattens as fast as the bowl rises
NASH = Toy(0.1, ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)), 50_000)
CAGRAD = Toy(1.0, ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)), 100_000)


class Point(nn.Module):
    """Two parameters; the seed of torch's generator says at which of the starts they are."""

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        start = toy.starts[torch.initial_seed() % len(toy.starts)]
        self.x = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.register_buffer("start", torch.tensor(start, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The point [2]."""
        return self.x


def _problem(toy: Toy) -> Problem:
    steps = torch.zeros(toy.steps, 1)

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        first, second = toy.losses(model()).unbind()
        return {"first": first, "second": second}

    def metrics(model: nn.Module, examples: Batch) -> dict[str, float]:
        start = toy.distance(model.get_buffer("start"))
        gone = 100 * (1 - float(toy.distance(model().detach()) / start))
        return {"first": gone, "second": gone}

    return Problem(
        train=(steps,),
        validation=(steps[:1],),
        test=(steps[:1],),
        model=lambda: Point(toy),
        optimizer=_adam,
        losses=losses,
        metrics=metrics,
        chance=0.0,
        better="higher",
        figure="share of the way to the Pareto set in %",
    )


def _adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


@task("toy", epochs=1, batch=1, lr=1e-3, paper=PAPER)
def toy(data_root: Path | None = None) -> Problem:
    """Two objectives of two parameters: Nash-MTL's version.

    50,000 steps from five starts, the k-th for seed k. The losses are

    - f₁ = log max(|½(−x₁−7) − tanh(−x₂)|, 5e-6) + 6,
    - f₂ = log max(|½(−x₁+3) + tanh(−x₂) + 2|, 5e-6) + 6,
    - q₁ = ((−x₁+7)² + 0.1(−x₂−8)²)/10 − 20, q₂ the same with −7,
    - c₁ = max(tanh(x₂/2), 0), c₂ = max(tanh(−x₂/2), 0),
    - L₁ = 0.1(f₁c₁ + q₁c₂), L₂ = f₂c₁ + q₂c₂.

    The figure of both objectives is the share of the way to the Pareto set, in percent.
    """
    return _problem(NASH)


@task("toy-cagrad", epochs=1, batch=1, lr=1e-3, paper=PAPER)
def toy_cagrad(data_root: Path | None = None) -> Problem:
    """CAGrad's version of `toy`: L₁ without the factor 0.1, 100,000 steps from three starts."""
    return _problem(CAGRAD)

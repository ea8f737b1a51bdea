"""What the tasks with a differential equation share: a network, derivatives, points, an error."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery.tasks.metric import Metric
from gradsurgery.tasks.problem import Problem

ERROR = Metric("relative L2 error", unit="%", higher=False, chance=100.0)  # of u = 0


class Network(nn.Module):
    """A tanh network from two coordinates to one number, over a box.

    Args:
        low: the box's lower corner [2].
        high: its upper corner [2].
        width: units of each of the three hidden layers.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Sequence[float], high: Sequence[float], width: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(),
            nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, 1),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor) -> Tensor:
        """u [n] at points [n, 2]; the box is scaled to [−1, 1]²."""
        scaled = 2 * (points - self.low) / (self.high - self.low) - 1
        u: Tensor = self.layers(scaled)[:, 0]
        return u


def slopes(u: Tensor, points: Tensor) -> Tensor:
    """∂uᵢ/∂pointsᵢ [n, 2] of values u [n], of which the losses' gradients can be taken."""
    (found,) = torch.autograd.grad(u.sum(), points, create_graph=True)
    return found


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate falls to zero along half a cosine."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def relative_error(found: Tensor, true: Tensor) -> float:
    """100 ‖found − true‖ / ‖true‖, in %."""
    return 100 * float(torch.linalg.vector_norm(found - true) / torch.linalg.vector_norm(true))


def grid(low: Sequence[float], high: Sequence[float], counts: Sequence[int]) -> Tensor:
    """The midpoints [n₁n₂…, d] of the cells of a box that is cut into n₁ × n₂ × ….

    They are in float64, as a reference solution wants them. Two grids with numbers of cells of
    which one is even and one odd have no point in common.
    """
    axes = [
        a + (b - a) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        for a, b, n in zip(low, high, counts, strict=True)
    ]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)


def network_problem(
    low: Sequence[float],
    high: Sequence[float],
    *,
    batches: Callable[[], Iterable[Any]],
    losses: Callable[[nn.Module, Any], dict[str, Tensor]],
    evaluate: Callable[[nn.Module, str], dict[str, float]],
    figures: Sequence[str],
    alone: Mapping[str, Sequence[str]],
) -> Problem:
    """The problem of a `Network` under Adam, whose rate falls along a cosine.

    Args:
        low: the box's lower corner.
        high: its upper corner.
        batches: as of a `Problem`.
        losses: likewise.
        evaluate: likewise; relative errors.
        figures: the names of those.
        alone: as of a `Problem`.
    """
    return Problem(
        model=lambda: Network(low, high, 32),
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
        scheduler=cosine,
        batches=batches,
        losses=losses,
        evaluate=evaluate,
        metrics=dict.fromkeys(figures, ERROR),
        alone=alone,
    )

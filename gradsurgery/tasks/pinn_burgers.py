"""pinn-burgers: the viscous Burgers equation, from a sine to a steep front."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gradsurgery.tasks.pinn import grid, network_problem, relative_error, slopes
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.task import task

NU = 0.01 / math.pi
LOW, HIGH = (-1.0, 0.0), (1.0, 1.0)  # of (x, t)
GRIDS = {"validation": (60, 20), "test": (201, 51)}  # cells of x and t
INSIDE, EACH = 256, 64  # fresh points per step: in the box; at the start and on both sides
NODES = 200  # 100 agree to 1e-14, and the weights of 400 overflow
Points = tuple[Tensor, Tensor, Tensor]


def reference(points: Tensor, nodes: int = NODES) -> Tensor:
    """u [n] at points (x, t) [n, 2] with t > 0, after Cole and Hopf.

    u = −E[sin(πy) w] / E[w] with y = x − √(4νt) z, w = exp(−cos(πy) / 2πν) and z of density
    proportional to exp(−z²), by Gauss-Hermite nodes; Basdevant et al. 1986.
    """
    x, t = (column[:, None] for column in points.double().numpy().T)
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    y = x - np.sqrt(4 * NU * t) * z
    # the largest power is taken out of the quotient: exp(1 / 2πν) alone is e⁵⁰
    power = -np.cos(np.pi * y) / (2 * np.pi * NU)
    scaled = weights * np.exp(power - power.max(1, keepdims=True))
    return torch.from_numpy(-(scaled * np.sin(np.pi * y)).sum(1) / scaled.sum(1)).to(points)


@task(
    "pinn-burgers",
    steps=1500,
    lr=(5e-3, 5e-2),
    primary="solution",
    delta=2.0,
    paper="Raissi et al. 2019, J. Comput. Phys. 378; Basdevant et al. 1986, Comput. Fluids 14",
)
def pinn_burgers(data_root: Path | None = None, seed: int = 0) -> Problem:
    """u_t + u u_x = ν u_xx with ν = 0.01/π: losses residual, initial and boundary on one network.

    On [−1, 1] × [0, 1], u(x, 0) = −sin πx and u(±1, t) = 0. At t = 0.5 a front of width 0.01 stands
    at x = 0, which a network fits last. Points are fresh in each step.

    Figures are relative L2 errors, `solution` over space and time and `initial` at t = 0, at two
    fixed grids without a common point, against Cole and Hopf's solution. Neither the residual nor
    what is given determines u: those runs say how far one part goes. δ is 2 points: the upwind
    scheme with 256 cells errs by 1.7 %. A seed gives the points, their order and the initial
    weights.
    """
    splits = {name: _grid(counts) for name, counts in GRIDS.items()}

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        points, u, start = splits[split]
        return {
            "solution": relative_error(model(points), u),
            "initial": relative_error(model(start), _initial(start)),
        }

    return network_problem(
        LOW,
        HIGH,
        batches=lambda: _points(seed),
        losses=_losses,
        evaluate=evaluate,
        figures=("solution", "initial"),
        alone={"residual": ["residual"], "given": ["initial", "boundary"]},
    )


def _grid(counts: tuple[int, int]) -> Points:
    """Midpoints (x, t), the solution there, and midpoints at t = 0."""
    points = grid(LOW, HIGH, counts)
    x = grid(LOW[:1], HIGH[:1], counts[:1])
    start = torch.cat([x, torch.zeros_like(x)], 1)
    return points.float(), reference(points).float(), start.float()


def _initial(points: Tensor) -> Tensor:
    """u(x, 0) = −sin πx."""
    return -torch.sin(math.pi * points[:, 0])


def _points(seed: int) -> Iterator[Points]:
    """Points inside [256, 2], at t = 0 [64, 2] and on the sides [64, 2], uniform, without end."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    while True:
        inside, start, edges = (
            low + (high - low) * torch.rand(count, 2, generator=generator)
            for count in (INSIDE, EACH, EACH)
        )
        start[:, 1] = LOW[1]
        edges[:, 0] = edges[:, 0].sign()
        yield inside, start, edges


def _losses(model: nn.Module, batch: Points) -> dict[str, Tensor]:
    inside, start, edges = batch
    inside = inside.clone().requires_grad_()
    u = model(inside)
    first = slopes(u, inside)
    u_x, u_t = first.unbind(1)
    u_xx = slopes(u_x, inside)[:, 0]
    return {
        "residual": (u_t + u * u_x - NU * u_xx).square().mean(),
        "initial": (model(start) - _initial(start)).square().mean(),
        "boundary": model(edges).square().mean(),
    }

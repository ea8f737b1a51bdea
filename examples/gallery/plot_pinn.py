"""
A differential equation with ConFIG
===================================

Poisson's equation on the unit square. A network is trained on the residual inside and
on the values at the boundary. At the start the residual's gradient is fourteen times as
long as the other, and the plain sum learns the boundary last. ConFIG takes a direction
of equal cosines with both.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

import gradsurgery as gs


def solution(points):
    """u = sin 2πx cos πy."""
    return torch.sin(2 * math.pi * points[:, 0]) * torch.cos(math.pi * points[:, 1])


def losses(network, inside, edge):
    """The residual of -Δu = 5π² sin 2πx cos πy, and the error on the boundary."""
    inside.requires_grad_()
    (first,) = torch.autograd.grad(network(inside).sum(), inside, create_graph=True)
    second = [
        torch.autograd.grad(column.sum(), inside, create_graph=True)[0]
        for column in first.T
    ]
    residual = second[0][:, 0] + second[1][:, 1] + 5 * math.pi**2 * solution(inside)
    error = network(edge)[:, 0] - solution(edge)
    return {"residual": residual.square().mean(), "boundary": error.square().mean()}


# %%
# The paper treats the network as one vector. The last bias does not enter the residual,
# which would make it a group of its own; ``{"network": network}`` says that all of it
# is one group.


def train(strategy, steps=400):
    """The relative error over the steps, in percent, and where it is [40, 40]."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    surgery = gs.Surgery(strategy, {"network": network})
    errors = []
    for step in range(steps):
        inside, edge = torch.rand(128, 2), torch.rand(128, 2)
        which = torch.arange(128)
        edge[which, which % 2] = (which // 2 % 2).float()  # a side each, in turn
        optimizer.zero_grad()
        record = surgery.backward(losses(network, inside, edge))
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            missing = network(grid)[:, 0].detach() - solution(grid)
            errors.append(100 * float(missing.norm() / solution(grid).norm()))
    print(f"{strategy}: relative error {errors[-1]:.1f} %, losses", record.losses)
    print("  its last weights:", record["network"].weights)
    return errors, missing.view(40, 40)


line = torch.linspace(0, 1, 40)
grid = torch.cartesian_prod(line, line)
outcomes = {strategy: train(strategy) for strategy in ("sum", "config")}

# %%
# The error of u over the steps, and where it is at the end, on one colour scale. That
# is one seed and one learning rate. With 0.003 and 0.03 in place of 0.01 the sum ended
# at 129 and 80 %, ConFIG at 17 and 0.5 %. A fixed weight of the boundary, or
# ``lr-annealing``, is another way to the same end, and :doc:`/results` compares them,
# tuned, on this equation with a loss per side.

curve, *maps = plt.figure(figsize=(10, 3.2), layout="constrained").subplots(1, 3)
largest = max(float(missing.abs().max()) for _, missing in outcomes.values())
for axes, (strategy, (errors, missing)) in zip(maps, outcomes.items(), strict=True):
    curve.semilogy(range(20, 20 * len(errors) + 1, 20), errors, label=strategy)
    image = axes.imshow(missing.T, origin="lower", extent=(0, 1, 0, 1), cmap="coolwarm")
    image.set_clim(-largest, largest)
    axes.set(title=f"error of {strategy}", xlabel="x", ylabel="y")
plt.colorbar(image, ax=maps)
curve.set(xlabel="step", ylabel="relative error of u, %")
curve.legend()
plt.show()

"""
Two losses and a curved valley
==============================

Two parameters, two losses, and a valley in which the plain sum stops short of the
Pareto set. It is the toy of CAGrad and Nash-MTL: one loss is ten times as long as the
other on the way down, and from the start below the two gradients soon point against
each other.
"""

import matplotlib.pyplot as plt
import torch

import gradsurgery as gs
from gradsurgery.tasks.toy import NASH

# %%
# A loop as any other. Adam takes 600 steps at 0.02, where the papers take 50,000 at
# 0.001; there is no randomness in it. ``surgery.backward(losses)`` stands where
# ``sum(losses).backward()`` stood.


def descend(strategy, steps=600):
    """The path of one strategy [steps + 1, 2]."""
    x = torch.nn.Parameter(torch.tensor((9.0, 9.0), dtype=torch.float64))
    optimizer = torch.optim.Adam([x], lr=0.02)
    surgery = gs.Surgery(strategy, [x])
    path = [x.tolist()]
    for _ in range(steps):
        first, second = NASH.losses(x).unbind()
        optimizer.zero_grad()
        record = surgery.backward({"first": first, "second": second})
        optimizer.step()
        path.append(x.tolist())
    weights = record["first+second"].weights
    print(
        f"{strategy}: {float(NASH.distance(x.detach())):.2f} from the Pareto set",
        weights,
    )
    return torch.tensor(path)


paths = {name: descend(name) for name in ("sum", "pcgrad", "nash-mtl")}

# %%
# In front of the valley the two gradients point against each other, and the sum, in
# which the longer one decides, goes to and fro. ``nash-mtl`` weighs both so that each
# loss falls by as much relative to its length, and arrives. ``pcgrad`` is slower. How
# far each comes depends on the step size: at twice the learning rate the sum gets past
# this place. :doc:`/toy` has the papers' own setting, from every start, for nine
# strategies.

axes = plt.figure(figsize=(6.4, 4.8), layout="constrained").subplots()
line = torch.linspace(-10, 10, 160)
grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).double()
height = NASH.losses(grid).sum(-1)
axes.contour(*grid.unbind(-1), height, levels=22, linewidths=0.4, cmap="Greys_r")
axes.plot(*NASH.front()[0].T, color="0.6", linewidth=6, label="Pareto set")
for name, path in paths.items():
    axes.plot(*path.T, label=name)
    axes.plot(*path[-1], "o", color=axes.lines[-1].get_color())
axes.set(xlabel="$x_1$", ylabel="$x_2$", title="600 steps of Adam from (9, 9)")
axes.legend(loc="upper left")
plt.show()

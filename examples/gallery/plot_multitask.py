"""
Two tasks on one trunk
======================

Two overlapping digits in one image, one task each. Both losses reach the trunk, and
each reaches its own head. The picture shows what a strategy decides in each step.
"""

import matplotlib.pyplot as plt
import torch

import gradsurgery as gs
from gradsurgery.tasks import get_task

# %%
# The task ``multimnist`` brings real digits, a small LeNet and its losses, here on a
# quarter of its training images. Three strategies get the same initial weights and
# batches from seed 0.

task = get_task("multimnist")
problem = task.load()
images, labels = (tensor[::4] for tensor in problem.train)


def train(strategy, steps=80):
    """Test accuracies in percent, and the weights in the trunk [steps, 2]."""
    torch.manual_seed(0)
    model = problem.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    surgery = gs.Surgery(strategy, model, measure=1)
    weights, cosines = [], []
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        losses = problem.losses(model, (images[rows], labels[rows]))
        optimizer.zero_grad()
        record = surgery.backward(losses)
        optimizer.step()
        trunk = record["left+right"]
        weights.append(trunk.weights.tolist())
        cosines.append(trunk.mean_cosine)
    with torch.no_grad():
        right = problem.metrics(model, tuple(tensor[::2] for tensor in problem.test))
    conflicts = sum(cosine < 0 for cosine in cosines)
    print(f"{strategy}: left {right['left']:.1f} %, right {right['right']:.1f} %;")
    print(f"  {conflicts} of {steps} steps in conflict")
    return right, torch.tensor(weights)


outcomes = {strategy: train(strategy) for strategy in ("sum", "mgda", "upgrad")}

# %%
# The weights of ``mgda`` sum to one, so that its steps are shorter than the sum's, and
# it goes by the task whose gradient is the shorter. ``upgrad`` returns a mean of
# projected gradients: one half each where there is no conflict. Adam divides by the
# length of what it has seen, so that here the ratio of the two weights counts more than
# their size. Accuracies after so few steps, on one seed, rank nothing.

panels = plt.figure(figsize=(9, 3), layout="constrained").subplots(1, 3, sharey=True)
for axes, (strategy, (right, weights)) in zip(panels, outcomes.items(), strict=True):
    for column, side in enumerate(("left", "right")):
        axes.plot(weights[:, column], label=f"{side}, {right[side]:.0f} %")
    axes.set(title=strategy, xlabel="step")
    axes.legend(title="test accuracy", fontsize="small")
panels[0].set_ylabel("weight in the trunk")
plt.show()

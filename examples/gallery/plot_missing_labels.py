"""
A loader per task, and labels that are missing
==============================================

Which digit, and is it even: two tasks on one trunk, each with data of its own, of which
one has far less. A loss that a step does not have is left out of the dict, and nothing
else is to be done.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import gradsurgery as gs
from gradsurgery.tasks.digits import load_digits, pooled

torch.manual_seed(0)
digits = load_digits()
(images, labels), (test, answers) = (
    (pooled(found).flatten(1), classes)
    for found, classes in (digits.train, digits.test)
)
loaders = {  # a third of the images has one label, a twentieth the other
    "digit": DataLoader(TensorDataset(images[::3], labels[::3]), 64, shuffle=True),
    "even": DataLoader(
        TensorDataset(images[1::20], labels[1::20] % 2), 32, shuffle=True
    ),
}
model = nn.ModuleDict(
    {
        "trunk": nn.Sequential(nn.Linear(196, 64), nn.ReLU()),
        "digit": nn.Linear(64, 10),
        "even": nn.Linear(64, 2),
    }
)

# %%
# The large loader gives a batch per step; the small one has been gone through after a
# third of them, and then that loss is missing. With one loss left in a group there is
# nothing to decide, and its gradient is used as it is. What the strategy remembers of a
# loss waits for its return.

optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
surgery = gs.Surgery("gradvac", model)  # it remembers a cosine per pair
steps = []
for _ in range(4):
    batches = {task: iter(loader) for task, loader in loaders.items()}
    for _ in range(len(loaders["digit"])):
        losses = {}
        for task, batch in batches.items():
            found = next(batch, None)
            if found is not None:
                some, right = found
                losses[task] = cross_entropy(model[task](model["trunk"](some)), right)
        optimizer.zero_grad()
        steps.append(surgery.backward(losses))
        optimizer.step()

with torch.no_grad():
    for task, right in {"digit": answers, "even": answers % 2}.items():
        share = (model[task](model["trunk"](test)).argmax(1) == right).float().mean()
        print(f"{task}: {100 * share:.1f} % of the test digits are right")
print(steps[0])
print(steps[len(loaders["digit"]) - 1])

# %%
# The trunk keeps its group and its name, whichever of its losses are there. A loss with
# an inner batch of size one, or whose labels are missing within a batch, is the mean
# over those that there are; ``torch.where`` on a mean of no example would give NaN,
# which is an error that names the loss.

axes = plt.figure(figsize=(8, 3), layout="constrained").subplots()
for task in loaders:
    at = [step for step, record in enumerate(steps) if task in record.losses]
    axes.plot(at, [steps[step].losses[task] for step in at], ".", label=task)
axes.set(xlabel="step", ylabel="loss", title="a point where the loss was there")
axes.legend()
plt.show()

"""
Unlearning: forget one thing, keep the rest
===========================================

A model that reads digits is to forget the threes. Two losses: one falls as a three is
taken for anything else, the other is the usual loss on all other digits. What one wants
the other pays for, unless the step is kept from it.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

import gradsurgery as gs
from gradsurgery.tasks.digits import load_digits, pooled

digits = load_digits()
(images, labels), (test, answers) = (
    (pooled(found).flatten(1), classes)
    for found, classes in (digits.train, digits.test)
)
threes, others = (labels == 3).nonzero()[:, 0], (labels != 3).nonzero()[:, 0]


def make_model(steps=200):
    """A model that knows all digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model


# %%
# ``forget`` is the cross-entropy with the uniform distribution, which is bounded below:
# gradient ascent on the usual loss would never stop.


def unlearn(options, steps=60):
    """Test accuracies on threes and on the others, every three steps, in percent."""
    model = make_model()
    surgery = gs.Surgery(parameters=model, measure=1, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found, conflicts = [], 0
    for step in range(steps):
        forget = threes[torch.randint(len(threes), (32,))]
        retain = others[torch.randint(len(others), (64,))]
        losses = {
            "forget": -log_softmax(model(images[forget]), 1).mean(),
            "retain": cross_entropy(model(images[retain]), labels[retain]),
        }
        optimizer.zero_grad()
        record = surgery.backward(losses)
        optimizer.step()
        conflicts += bool(record["forget+retain"].conflicts)
        if step % 3 == 2:
            with torch.no_grad():
                right = (model(test).argmax(1) == answers).float()
            found.append([100 * float(right[answers == 3].mean())])
            found[-1].append(100 * float(right[answers != 3].mean()))
    print(f"{options}: in conflict in {conflicts} of {steps} steps;")
    print(f"  threes {found[-1][0]:.1f} %, others {found[-1][1]:.1f} %")
    return torch.tensor(found)


RUNS = {
    "sum": {"strategy": "sum"},
    "pcgrad": {"strategy": "pcgrad"},
    "sum, retain protected": {"strategy": "sum", "protect": "retain"},
}
outcomes = {name: unlearn(options) for name, options in RUNS.items()}

# %%
# All three forget as fast, and the other digits pay for the first steps. The losses
# conflict in most steps, yet there is little that a strategy could save here: what is
# promised is of the first order and of this batch. :doc:`/frameworks` has a language
# model that is to forget some people.

panels = plt.figure(figsize=(9, 3.2), layout="constrained").subplots(1, 2)
for column, axes in enumerate(panels):
    for name, found in outcomes.items():
        axes.plot(range(3, 3 * len(found) + 1, 3), found[:, column], label=name)
    axes.set(xlabel="step", ylabel="test accuracy, %")
panels[0].set_title("threes, to be forgotten")
panels[1].set_title("all other digits")
panels[1].legend()
plt.show()

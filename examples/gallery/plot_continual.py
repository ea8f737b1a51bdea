"""
Continual learning: one loss must not rise
==========================================

A model knows the digits 0 to 4 and learns 5 to 9. A few of the old digits are kept for
rehearsal; ``protect="old"`` says that no step may raise their loss to first order.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gradsurgery as gs
from gradsurgery.tasks.digits import load_digits, pooled

digits = load_digits()
(images, labels), (test, answers) = (
    (pooled(found).flatten(1), classes)
    for found, classes in (digits.train, digits.test)
)
old, new = (labels < 5).nonzero()[:, 0], (labels >= 5).nonzero()[:, 0]
kept = old[:: len(old) // 50][:50]  # rehearsal: 50 of the 1,750 old digits


def accuracy(model, which):
    """How many of the chosen test digits are right, in percent."""
    with torch.no_grad():
        right = model(test[which]).argmax(1) == answers[which]
    return 100 * float(right.float().mean())


def make_model(steps=150):
    """A model that knows the old digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(steps):
        rows = old[torch.randint(len(old), (64,))]
        optimizer.zero_grad()
        cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model


# %%
# ``protect="old"`` goes over any strategy, here over ``sum``: the direction is
# projected where it would conflict with the protected loss. A-GEM is that without the
# old loss in the sum.

SURGERIES = {
    "new only": {},
    "sum": {},
    "a-gem": {"strategy": "a-gem", "objective": "old"},
    "protect": {"protect": "old"},
}


def learn(how, steps=80):
    """Accuracies on old and new digits, every five steps."""
    model = make_model()
    surgery = gs.Surgery(**{"strategy": "sum", "parameters": model, **SURGERIES[how]})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(steps):
        rows = new[torch.randint(len(new), (64,))]
        losses = {"new": cross_entropy(model(images[rows]), labels[rows])}
        if how != "new only":
            losses["old"] = cross_entropy(model(images[kept]), labels[kept])
        optimizer.zero_grad()
        surgery.backward(losses)
        optimizer.step()
        if step % 5 == 4:
            found.append([accuracy(model, answers < 5), accuracy(model, answers >= 5)])
    print(f"{how}: old {found[-1][0]:.1f} %, new {found[-1][1]:.1f} %")
    return torch.tensor(found)


outcomes = {how: learn(how) for how in SURGERIES}

# %%
# Without rehearsal the old digits are lost. What is protected is the loss on fifty
# digits, to first order, and no other: that does not rise, and accuracy on the old test
# digits falls all the same where fifty do not stand for all. One seed, one learning
# rate.

axes = plt.figure(figsize=(9, 3.2), layout="constrained").subplots(1, 2, sharey=True)
for column, title in enumerate(("digits 0 to 4", "digits 5 to 9")):
    for how, found in outcomes.items():
        steps = range(5, 5 * len(found) + 1, 5)
        axes[column].plot(steps, found[:, column], label=how)
    axes[column].set(title=title, xlabel="step")
axes[0].set_ylabel("test accuracy, %")
axes[0].legend()
plt.show()

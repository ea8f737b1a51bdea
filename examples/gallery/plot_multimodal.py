"""
Two modalities with MMPareto
============================

A digit in two modalities, a clear left half and a noisy right half, with an encoder
each. Three losses train the model: one on both, and one per modality, so that neither
encoder is left untrained by a joint loss that the clear half satisfies alone.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gradsurgery as gs
from gradsurgery.tasks.digits import load_digits, pooled


class TwoEncoders(nn.Module):
    """An encoder and a head per modality, and a head on both."""

    def __init__(self):
        super().__init__()
        self.clear, self.noisy = (
            nn.Sequential(nn.Flatten(), nn.Linear(98, 64), nn.ReLU(), nn.Linear(64, 64))
            for _ in range(2)
        )
        self.clear_head, self.noisy_head = nn.Linear(64, 10), nn.Linear(64, 10)
        self.joint_head = nn.Linear(128, 10)

    def forward(self, images):
        """Logits of the three heads from images [n, 14, 14]."""
        clear = self.clear(images[..., :7]).relu()
        noisy = self.noisy(images[..., 7:]).relu()
        return {
            "joint": self.joint_head(torch.cat([clear, noisy], 1)),
            "clear": self.clear_head(clear),
            "noisy": self.noisy_head(noisy),
        }


torch.manual_seed(0)
digits = load_digits()
(images, labels), (test, answers) = (
    (pooled(found), classes) for found, classes in (digits.train, digits.test)
)
images[..., 7:] += 0.6 * torch.randn_like(images[..., 7:])
test[..., 7:] += 0.6 * torch.randn_like(test[..., 7:])

# %%
# There is nothing to configure. The losses that reach a parameter say to which group it
# belongs: each encoder is reached by the joint loss and by its own, and is a problem of
# two objectives. The heads, each reached by one loss, are trained as ever.


def train(strategy, steps=160):
    """Test accuracies in percent, and each encoder's cosines over the steps."""
    torch.manual_seed(0)  # the same weights and batches for each strategy
    model = TwoEncoders()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    surgery = gs.Surgery(strategy, model, measure=1)  # `sum` alone measures nothing
    cosines = []
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        found = model(images[rows])
        losses = {k: cross_entropy(logits, labels[rows]) for k, logits in found.items()}
        optimizer.zero_grad()
        record = surgery.backward(losses)
        optimizer.step()
        cosines.append([record[group].mean_cosine for group in encoders])
    with torch.no_grad():
        guesses = {name: logits.argmax(1) for name, logits in model(test).items()}
    right = {
        k: 100 * float((guess == answers).float().mean())
        for k, guess in guesses.items()
    }
    print(f"{strategy}:", ", ".join(f"{k} {value:.1f} %" for k, value in right.items()))
    for group, values in zip(encoders, torch.tensor(cosines).T, strict=True):
        print(f"  {group}: {int((values < 0).sum())} of {steps} steps in conflict")
    return right, torch.tensor(cosines)


encoders = ("clear+joint", "joint+noisy")  # the names of the groups
outcomes = {strategy: train(strategy) for strategy in ("sum", "mmpareto")}

# %%
# One seed and one learning rate say nothing about which is better. What the picture
# does show is how seldom the two losses of an encoder conflict here: in the first steps
# only. Where they do not, MMPareto is the sum times its factor of 1.5, which is a
# larger learning rate.

left, right = plt.figure(figsize=(9, 3.6), layout="constrained").subplots(1, 2)
for place, (strategy, (accuracy, cosines)) in enumerate(outcomes.items()):
    at = torch.arange(3) + 0.4 * place
    left.bar(at, [*accuracy.values()], width=0.38, label=strategy)
    for column, group in enumerate(encoders):
        if strategy == "mmpareto":
            right.plot(cosines[:, column], ".", markersize=4, label=group)
left.set(
    ylabel="test accuracy, %", xticks=torch.arange(3) + 0.2, xticklabels=list(accuracy)
)
left.legend(loc="lower right")
right.axhline(0, color="black", linewidth=0.8)
right.set(
    xlabel="step", ylabel="cosine of the two gradients", title="mmpareto, per encoder"
)
right.legend()
plt.show()

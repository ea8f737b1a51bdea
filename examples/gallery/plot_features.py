"""
A generator, and a balance at its output
========================================

A network draws a digit again from twelve numbers. Three losses judge the picture:
squared error, the error of its edges, and a critic that is trained against it, as in a
GAN. Their gradients are compared where they meet, at the picture, and not in every
parameter of the generator.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as judged

import gradsurgery as gs
from gradsurgery.tasks.digits import load_digits, pooled

torch.manual_seed(0)
images = pooled(load_digits().train[0]).flatten(1)  # [n, 196]


def edges(pictures):
    """Differences of neighbours in each row."""
    return pictures.view(-1, 14, 14).diff(dim=2)


# %%
# ``features=drawn`` gives the strategy the gradients at the picture, [batch, 196], and
# one pass takes what it decides through the generator. That is EnCodec's loss balancer
# where the strategy is ``balancer``: the gradients are made equally long, in the ratio
# of ``preference``, so that a loss's own scale no longer matters. Here the edges' loss
# is a thousand times too large on purpose.


def train(strategy, steps=120, **options):
    """The generator's losses at the end, and some pictures [8, 196]."""
    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.Linear(196, 96), nn.ReLU(), nn.Linear(96, 12), nn.Linear(12, 96), nn.ReLU(),
        nn.Linear(96, 196), nn.Sigmoid(),
    )  # fmt: skip
    critic = nn.Sequential(nn.Linear(196, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    drawing = torch.optim.Adam(generator.parameters(), lr=2e-3)
    judging = torch.optim.Adam(critic.parameters(), lr=5e-4)
    surgery = gs.Surgery(strategy, generator, **options)
    for _ in range(steps):
        given = images[torch.randint(len(images), (64,))]
        drawn = generator(given)
        losses = {
            "error": (drawn - given).square().mean(),
            "edges": 1000 * (edges(drawn) - edges(given)).abs().mean(),
            "critic": judged(critic(drawn), torch.ones(64, 1)),
        }
        drawing.zero_grad()
        record = surgery.backward(losses, features=drawn)
        drawing.step()
        real, made = critic(given), critic(drawn.detach())
        judging.zero_grad()
        (judged(real, torch.ones(64, 1)) + judged(made, torch.zeros(64, 1))).backward()
        judging.step()
    print(
        f"{strategy}:", {name: round(value, 3) for name, value in record.losses.items()}
    )
    return generator(images[:8]).detach()


preference = {"error": 4.0, "edges": 1.0, "critic": 0.5}
pictures = {
    "given": images[:8],
    "sum": train("sum"),
    "balancer": train("balancer", preference=preference),
}

# %%
# Nothing here says which ratio is good: ``preference`` is what one would tune, and it
# means the same whatever the losses' units are. What a strategy promises holds at the
# features only.

panels = plt.figure(figsize=(8, 3.2), layout="constrained").subplots(3, 8)
for row, (name, found) in zip(panels, pictures.items(), strict=True):
    for axes, picture in zip(row, found, strict=True):
        axes.imshow(picture.view(14, 14), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
plt.show()

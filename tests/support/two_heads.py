"""A trunk and two heads, in float32, and comparisons of its gradients."""

from torch import nn


class Two(nn.Module):
    """A trunk and two heads."""

    def __init__(self):
        super().__init__()
        self.enc, self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 1), nn.Linear(5, 1)

    def forward(self, x):
        z = self.enc(x).tanh()
        return self.a(z), self.b(z)


def losses_of(model, x):
    first, second = model(x)
    return {"a": (first - 1).pow(2).mean(), "b": (second + x.sum(1, keepdim=True)).pow(2).mean()}

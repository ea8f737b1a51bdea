"""More of these models: parameters of which all examples use what is computed from them once."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.per_example_models import B, D, T, layer, squares


def positions(index, length=T):
    """Tokens, and positions that all examples share."""
    return squares(
        lambda m, x: m.out(torch.tanh(m.table(x) + m.positions(index))),
        torch.randint(9, (B, length)),
        table=nn.Embedding(9, D),
        positions=nn.Embedding(10, D),
        out=nn.Linear(D, 3),
    )


layer("positions, all examples'")(lambda: positions(torch.arange(T)))
layer("positions, as a row")(lambda: positions(torch.arange(T)[None]))
layer("positions, as many as examples")(lambda: positions(torch.arange(B), B))
layer("positions, not in order")(lambda: positions(torch.tensor([3, 1, 1, 0, 7, 2])))


def bare(use):
    """A bare parameter of positions for 2T tokens."""
    return squares(
        lambda m, x: m.out(torch.tanh(use(m.before(x), m.positions))),
        torch.randn(B, T, D),
        before=nn.Linear(D, D),
        positions=nn.Parameter(torch.randn(1, 2 * T, D)),
        out=nn.Linear(D, 2),
    )


USES = {
    "slice": lambda x, p: x + p[:, :T],
    "slice without the batch": lambda x, p: x + p[0, T:],
    "slice, expanded": lambda x, p: x + p[:, :T].expand(len(x), -1, -1),
    "every second, scaled": lambda x, p: x - 2.0 * p[:, ::2],
    "resampled": lambda x, p: (
        x + F.interpolate(p.transpose(1, 2), size=T, mode="linear").transpose(1, 2)
    ),
    "gate": lambda x, p: x * p[:, :T].sigmoid() + p[:, T:],
}
for name, use in USES.items():
    layer(f"bare positions, {name}")(lambda use=use: bare(use))


@layer("relative positions")
def relative():
    place = torch.arange(T)

    def call(m, x):
        q = m.query(x)
        bias = m.table(place[:, None] - place + T).permute(2, 0, 1)[None]
        scores = (q @ q.transpose(1, 2))[:, None] + bias
        return m.out((scores.softmax(-1) @ q[:, None]).mean(1))

    return squares(
        call,
        torch.randn(B, T, D),
        query=nn.Linear(D, D),
        table=nn.Embedding(2 * T, 3),
        out=nn.Linear(D, 2),
    )


@layer("convolution, weight normed")
def normed():
    body = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3))
    return squares(lambda m, x: torch.tanh(m.body(x)), torch.randn(B, 4, 7, 7), body=body)

"""More of these models: the ways in which a parameter is used."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.support import per_example_shared
from tests.support.per_example_models import IMAGE, LAYERS, B, Calling, D, T, layer, simple, squares

__all__ = ["LAYERS", "per_example_shared"]


@layer("class token and positions")
def tokens():
    def call(m, x):
        x = torch.cat([m.token.expand(len(x), -1, -1), x], 1) + m.places
        return m.body(x)[:, 0]

    one = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True)
    return squares(
        lambda m, x: call(m, x) + torch.arange(D),
        torch.randn(B, T, D),
        token=nn.Parameter(torch.randn(1, 1, D)),
        places=nn.Parameter(torch.randn(T + 1, D)),
        body=one,
    )


@layer("tied weights")
def tied():
    tokens = torch.randint(9, (B, T))
    model = Calling(
        lambda m, x: m.out(torch.tanh(m.table(x))), table=nn.Embedding(9, D), out=nn.Linear(D, 9)
    )
    model.out.weight = model.table.weight
    return (
        model,
        lambda: (
            F.cross_entropy(
                model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten(), reduction="none"
            )
            .view(B, T)
            .mean(1)
        ),
    )


@layer("a layer used twice")
def twice():
    return squares(
        lambda m, x: m.body(torch.tanh(m.body(x))), torch.randn(B, D), body=nn.Linear(D, D)
    )


@layer("a layer used on examples and on tokens")
def different_rows():
    return squares(
        lambda m, x: m.body(x) + m.body(x[:, 0])[:, None],
        torch.randn(B, T, D),
        body=nn.Linear(D, D),
    )


@layer("a convolution used twice")
def convolved_twice():
    return squares(
        lambda m, x: m.body(torch.tanh(m.body(x))), torch.randn(IMAGE), body=nn.Conv2d(4, 4, 3)
    )


@layer("low-rank update")
def low_rank():
    def call(m, x):
        return m.base(x) + 2.0 * m.up(m.down(x))

    base = nn.Linear(D, D).requires_grad_(False)
    down, up = nn.Linear(D, 2, bias=False), nn.Linear(2, D, bias=False)
    nn.init.zeros_(up.weight)
    return squares(call, torch.randn(B, T, D), base=base, down=down, up=up)


@layer("bare parameters")
def bare():
    def call(m, x):
        return torch.cos(x * m.scale / m.part) ** 2 - m.shift + m.single * x @ m.square

    return squares(
        call,
        torch.randn(B, D),
        scale=nn.Parameter(torch.randn(D)),
        part=nn.Parameter(torch.rand(1, D) + 1),
        shift=nn.Parameter(torch.randn(D)),
        single=nn.Parameter(torch.randn(())),
        square=nn.Parameter(torch.randn(D, D)),
    )


@layer("views of a parameter")
def views():
    def call(m, x):
        first, second = m.both[:D], m.both[D:]
        return F.linear(F.linear(x, first), second) + F.linear(x, m.flat.view(D, D)) @ m.flat.view(
            D, D
        )

    return squares(
        call,
        torch.randn(B, D),
        both=nn.Parameter(torch.randn(2 * D, D) / 3),
        flat=nn.Parameter(torch.randn(D * D) / 3),
    )


@layer("einsum and batched products")
def einsum():
    def call(m, x):
        return torch.einsum("btd,hde->bhte", x, m.heads) + (x @ m.heads[0])[:, None]

    return squares(call, torch.randn(B, T, D), heads=nn.Parameter(torch.randn(3, D, 5)))


@layer("checkpoint")
def checkpointed():
    body = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.LayerNorm(D), nn.Linear(D, D))
    return squares(
        lambda m, x: m.out(checkpoint(m.body, m.before(x), use_reentrant=False)),
        torch.randn(B, D),
        before=nn.Linear(D, D),
        body=body,
        out=nn.Linear(D, 2),
    )


@layer("in place and dropout")
def in_place():
    def call(m, x):
        torch.manual_seed(1)
        h = m.first(x)
        h.add_(m.gate)
        h[:, 0] = 1.0
        h = torch.relu_(h)
        return m.second(F.dropout(h, 0.5))

    return squares(
        call,
        torch.randn(B, D),
        first=nn.Linear(D, D),
        gate=nn.Parameter(torch.randn(D)),
        second=nn.Linear(D, 3),
    )


@layer("as many rows per example")
def rows_per_example():
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 1))
    x = torch.randn(B * 3, D)
    return model, lambda: model(x).square().view(B, 3).mean(1)


@layer("rows per example, turned")
def rows_turned():
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 1))
    x = torch.randn(B * 3, D)
    return model, lambda: model(x).square().view(3, B).mean(0)


@layer("a single parameter per example")
def memory():
    return squares(
        lambda m, x: x * m.memory + m.body(x),
        torch.randn(B, D),
        memory=nn.Parameter(torch.randn(B, D)),
        body=nn.Linear(D, D),
    )


@layer("a hook on a parameter")
def hooked():
    model, losses_of = simple(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 2))
    model.body[0].weight.register_hook(lambda g: 3 * g)
    return model, losses_of

"""Models and per-example losses of many kinds of layers, small; each gives (model, losses_of)."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

B, T, D = 4, 6, 8
LAYERS = {}


def layer(name):
    """A kind of layer by its name: a function that makes (model, losses_of)."""

    def keep(make):
        LAYERS[name] = make
        return make

    return keep


class Calling(nn.Module):
    """Modules by name and a function of them and a batch."""

    def __init__(self, call, **modules):
        super().__init__()
        self.call = call
        for name, module in modules.items():
            if isinstance(module, nn.Parameter):
                self.register_parameter(name, module)
            else:
                self.add_module(name, module)

    def forward(self, x):
        return self.call(self, x)


def squares(call, x, **modules):
    """The mean square of what a function gives, by example."""
    model = Calling(call, **modules)
    return model, lambda: model(x).square().flatten(1).mean(1)


def simple(*layers, shape=(B, D)):
    return squares(lambda m, x: m.body(x), torch.randn(shape), body=nn.Sequential(*layers))


def recurrent(kind, batch_first, **options):
    def call(m, x):
        h = m.body(x if batch_first else x.transpose(0, 1))[0]
        return m.out(h if batch_first else h.transpose(0, 1))

    body = kind(D, 5, batch_first=batch_first, **options)
    width = 10 if options.get("bidirectional") else 5
    return squares(call, torch.randn(B, T, D), body=body, out=nn.Linear(width, 3))


for kind in (nn.RNN, nn.LSTM, nn.GRU):
    for first in (True, False):
        layer(f"{kind.__name__}, batch_first={first}")(
            lambda kind=kind, first=first: recurrent(kind, first)
        )
layer("LSTM of two layers, both ways")(
    lambda: recurrent(nn.LSTM, True, num_layers=2, bidirectional=True)
)


@layer("cells, one step after the other")
def cells():
    def call(m, x):
        h = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            h = m.cell(step, h)
        return h

    return squares(call, torch.randn(B, 3, D), cell=nn.GRUCell(D, 5))


def attention(batch_first):
    def call(m, x):
        x = m.before(x if batch_first else x.transpose(0, 1))
        out = m.body(x, x, x)[0]
        return out if batch_first else out.transpose(0, 1)

    body = nn.MultiheadAttention(D, 2, batch_first=batch_first)
    return squares(call, torch.randn(B, T, D), before=nn.Linear(D, D), body=body)


def encoder(batch_first):
    def call(m, x):
        out = m.body(x if batch_first else x.transpose(0, 1))
        return out if batch_first else out.transpose(0, 1)

    one = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=batch_first)
    body = nn.TransformerEncoder(one, 2, enable_nested_tensor=False)
    x = torch.randn(B, T, D)
    model = Calling(call, body=body)
    target = torch.randn(B, T, D)
    return model, lambda: (model(x) - target).square().flatten(1).mean(1)


layer("attention, batch first")(lambda: attention(True))
layer("attention, sequence first")(lambda: attention(False))
layer("transformer encoder, batch first")(lambda: encoder(True))
layer("transformer encoder, sequence first")(lambda: encoder(False))

IMAGE = (B, 4, 7, 7)
CONVOLUTIONS = {
    "1d": (lambda: nn.Conv1d(4, 6, 3), (B, 4, 9)),
    "2d": (lambda: nn.Conv2d(4, 6, 3), IMAGE),
    "3d": (lambda: nn.Conv3d(2, 3, 2), (B, 2, 4, 4, 4)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), IMAGE),
    "strided, dilated, padded": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2)), IMAGE),
    "padded same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), IMAGE),
    "padded circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "without bias": (lambda: nn.Conv2d(4, 6, 1, bias=False), IMAGE),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), IMAGE),
}
for name, (body, shape) in CONVOLUTIONS.items():
    layer(f"convolution {name}")(
        lambda body=body, shape=shape: simple(
            nn.Conv2d(4, 4, 1) if shape == IMAGE else nn.Identity(), body(), nn.Tanh(), shape=shape
        )
    )
layer("convolution of channels last")(
    lambda: simple(
        nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), nn.Conv2d(6, 2, 3), shape=IMAGE
    )
)


def embedded(**options):
    tokens = torch.randint(1, 9, (B, T))
    tokens[:, -1] = 0
    tokens[0, :3] = 5
    if options.pop("sequence_first", False):
        return squares(
            lambda m, x: m.out(m.table(x.T)).transpose(0, 1),
            tokens,
            table=nn.Embedding(9, D, **options),
            out=nn.Linear(D, 3),
        )
    return squares(
        lambda m, x: m.out(m.table(x)),
        tokens,
        table=nn.Embedding(9, D, **options),
        out=nn.Linear(D, 3),
    )


layer("embedding")(embedded)
layer("embedding, padding")(lambda: embedded(padding_idx=0))
layer("embedding, sequence first")(lambda: embedded(sequence_first=True))
layer("embedding by frequency")(lambda: embedded(scale_grad_by_freq=True))


@layer("embedding bag")
def bag():
    tokens = torch.randint(9, (B, T))
    return squares(lambda m, x: m.table(x), tokens, table=nn.EmbeddingBag(9, D))


NORMS = {
    "layer norm": lambda: simple(nn.Linear(D, D), nn.LayerNorm(D), nn.Tanh()),
    "layer norm of tokens": lambda: simple(nn.LayerNorm((T, D)), nn.Tanh(), shape=(B, T, D)),
    "group norm": lambda: simple(
        nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.Tanh(), nn.Conv2d(6, 3, 2), shape=IMAGE
    ),
    "rms norm": lambda: simple(nn.Linear(D, D), nn.RMSNorm(D), nn.Linear(D, 2)),
    "instance norm": lambda: simple(
        nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Tanh(), shape=IMAGE
    ),
    "batch norm, eval": lambda: simple(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6).eval(), nn.Tanh(), shape=IMAGE
    ),
    "prelu": lambda: simple(nn.Linear(D, D), nn.PReLU(D), nn.Linear(D, 3), nn.PReLU()),
    "weight norm": lambda: simple(nn.utils.parametrizations.weight_norm(nn.Linear(D, D))),
    "old weight norm": lambda: simple(_weight_normed()),
    "spectral norm": lambda: simple(
        nn.utils.parametrizations.spectral_norm(nn.Linear(D, D)).eval()
    ),
    "orthogonal": lambda: simple(nn.utils.parametrizations.orthogonal(nn.Linear(D, D))),
}
for name, make in NORMS.items():
    layer(name)(make)


def _weight_normed():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(D, D))


@layer("bilinear")
def bilinear():
    return squares(lambda m, x: m.body(x, x.sin()), torch.randn(B, D), body=nn.Bilinear(D, D, 3))


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

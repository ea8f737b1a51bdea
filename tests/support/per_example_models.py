"""Models and per-example losses of many kinds of layers, small; each gives (model, losses_of)."""

import torch
from torch import nn

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

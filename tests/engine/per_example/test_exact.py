"""One pass for all mixtures against a pass per objective: Gram matrix and direction."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs
from benchmarks.models import Encoder, Heads, TwoEncoders, lenet, resnet18
from tests.support.per_example import (
    CLOSE,
    check,
    distance,
    gradients,
    gram_error,
    mixtures,
    plain_gradients_of,
)
from tests.support.per_example_models import B, D, T, embedded
from tests.support.per_example_uses import LAYERS

USUAL = ("[convolution grouped]", "[tied weights]", "[positions, all examples']")


PASSES = {  # what gets a pass per objective, and so is no test of a rule
    *("orthogonal", "views of a parameter", "einsum and batched products"),
    "a hook on a parameter",
}


@pytest.mark.sampled(keep=lambda name: name.endswith(USUAL))
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind):
    torch.manual_seed(0)
    model, losses_of = LAYERS[kind]()
    for n in (3, 9):  # fewer and more than examples
        *_, method = check(model, losses_of, torch.randn(n, B))
        assert ("per objective" in method) == (kind in PASSES)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_in_float64(kind):
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model, losses_of = LAYERS[kind]()
        check(model.double(), losses_of, torch.randn(5, B), close=1e-12)
    finally:
        torch.set_default_dtype(default)


POSITIONS = ("positions, all", "positions, as a row", "positions, not", "bare pos", "relative pos")
SHARED = [name for name in LAYERS if name.startswith(POSITIONS)]


@pytest.mark.sampled(keep=lambda name: name.endswith(("[positions, as a row]", "slice]")))
@pytest.mark.parametrize("kind", SHARED)
def test_positions_without_a_check(kind):
    torch.manual_seed(0)
    model, losses_of = LAYERS[kind]()
    named = mixtures(torch.randn(3, B))
    surgery = gs.Surgery("unit-sum", model)
    expected, _ = plain_gradients_of(model, losses_of(), named)
    expected = {name: g.clone() for name, g in expected.items()}
    for _ in range(2):
        model.zero_grad()
        record = surgery.backward(gs.PerExample(losses_of(), named, verify="never"))
        far, size = distance(gradients(model), expected)
        assert far <= CLOSE * size
        assert record.method == "one pass"


def test_positions_by_example_and_shared_in_turn():
    """The nodes are the same: B divides T, so that both could be rows of examples."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"positions": nn.Embedding(8, D), "out": nn.Linear(D, 1)})
    x, named, surgery = torch.randn(B, 8, D), mixtures(torch.randn(3, B)), gs.Surgery("unit-sum")
    place = torch.arange(8)
    for index in (place.expand(B, -1), place, place[None], place.expand(B, -1), place):

        def losses_of(index=index):
            return model["out"](torch.tanh(x + model["positions"](index))).square().mean((1, 2))

        expected, _ = plain_gradients_of(model, losses_of(), named)
        expected = {name: g.clone() for name, g in expected.items()}
        model.zero_grad()
        surgery.backward(gs.PerExample(losses_of(), named))
        far, size = distance(gradients(model), expected)
        assert far <= CLOSE * size


TRUNKS = {
    "lenet": (lambda: Heads(lenet(), 50, 2), (6, 1, 36, 36)),
    "mlp": (
        lambda: Heads(
            nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(32, 32), nn.ReLU())]), 32, 2
        ),
        (8, 32),
    ),
    "resnet-18, eval": (lambda: Heads(resnet18(), 512, 2).eval(), (2, 3, 16, 16)),
    "transformer": (lambda: Heads(Encoder(), 128, 2), (4, 8, 128)),
    "two encoders": (TwoEncoders, (4, 4, 16, 16)),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TRUNKS)
def test_models_of_the_benchmarks(name):
    torch.manual_seed(0)
    make, shape = TRUNKS[name]
    model, x = make(), torch.randn(shape)
    labels = torch.randint(10, (3, len(x)))

    def losses_of():
        if isinstance(model, Heads):
            z = model.trunk(x)
            outs = [head(z) for head in model.heads]
        else:
            a, v = model.audio(x[:, :1]), model.visual(x[:, 1:])
            outs = [model.fusion(torch.cat([a, v], 1)), model.audio_head(a), model.visual_head(v)]
        return torch.stack(
            [
                F.cross_entropy(out, own, reduction="none")
                for out, own in zip(outs, labels, strict=False)
            ]
        ).sum(0)

    check(model, losses_of, torch.randn(3, len(x)))
    if name != "resnet-18, eval":
        check(model, losses_of, torch.randn(9, len(x)))


def test_sparse_embeddings():
    torch.manual_seed(0)
    model, losses_of = embedded(sparse=True)
    torch.manual_seed(0)
    dense, dense_losses_of = embedded()
    dense.load_state_dict(model.state_dict())
    weights = {f"o{i}": row for i, row in enumerate(torch.randn(3, B))}
    found = gs.inspect(gs.PerExample(losses_of(), weights), model)
    expected = gs.inspect({k: (row * dense_losses_of()).sum() for k, row in weights.items()}, dense)
    assert gram_error(found, expected) < CLOSE


@pytest.mark.exhaustive
def test_autocast():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    )
    x = torch.randn(B, T, D)

    def losses_of():
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float().square().mean((1, 2))

    *_, method = check(model, losses_of, torch.randn(3, B), close=0.02)
    assert "per objective" not in method


@pytest.mark.exhaustive
def test_bfloat16():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 1)).bfloat16()
    x = torch.randn(B, D).bfloat16()
    check(model, lambda: model(x).float().square()[:, 0], torch.randn(3, B), close=0.03)

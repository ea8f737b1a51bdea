"""Random mixtures: zeros, signs, duplicates, scales; numbers of examples and of objectives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradsurgery as gs
from tests.support.per_example import CLOSE, apart, check, gram_error, mixtures

D = 3


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 2))


def batch(model, count, tokens=None):
    x = torch.randn(count, *([] if tokens is None else [tokens]), D)
    return lambda: model(x).square().sum(-1)


@st.composite
def factors(draw, tokens=False):
    """A [n, B] or [n, B, T] in float64, with the count of tokens and rank."""
    n, b = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (n, b)
    if tokens:
        t, rank = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        found = np.einsum("nbr,rbt->nbt", rng.normal(size=(n, b, rank)), rng.random((rank, b, t)))
    else:
        found = rng.normal(size=shape)
    if draw(st.booleans()):
        found *= rng.random(found.shape) < 0.5
    if draw(st.booleans()):
        found = np.abs(found)
    if n > 1 and draw(st.booleans()):
        found[rng.integers(n)] = found[rng.integers(n)]
    if draw(st.booleans()):
        found[rng.integers(n)] = 0
    if draw(st.booleans()):
        powers = rng.integers(-4, 5, n) if draw(st.booleans()) else rng.integers(-20, 1, n)
        found *= 10.0 ** powers.reshape(-1, *[1] * (found.ndim - 1))
    return found


def agrees(rows, tokens=None):
    """Each objective's norm and cosines, so that none is too small to count."""
    model = model_of().double()
    x = torch.randn(rows.shape[1], *([] if tokens is None else [tokens]), D, dtype=torch.float64)
    losses, named = model(x).square().sum(-1), mixtures(rows)
    found = gs.inspect(gs.PerExample(losses, named, verify="never"), model)
    expected = gs.inspect(apart(losses_again(model, x), named), model)
    for key, group in expected.groups.items():
        norms = np.sqrt(np.diag(group.gram))
        sizes = np.outer(norms, norms)
        # a mixture whose parts cancel is as exact as they are
        assert (np.abs(found[key].gram - group.gram) <= 1e-7 * sizes + 1e-300).all()


def losses_again(model, x):
    return model(x).square().sum(-1)


@settings(max_examples=5)
@given(factors())
def test_random_mixtures(rows):
    agrees(rows)


@settings(max_examples=5)
@given(factors(tokens=True))
def test_random_mixtures_of_tokens(rows):
    agrees(rows, rows.shape[2])


@pytest.mark.exhaustive
@settings(max_examples=100)
@given(factors())
def test_many_random_mixtures(rows):
    agrees(rows)


@pytest.mark.exhaustive
@settings(max_examples=100)
@given(factors(tokens=True))
def test_many_random_mixtures_of_tokens(rows):
    agrees(rows, rows.shape[2])


@pytest.mark.parametrize(
    ("examples", "objectives"),
    [
        (1, 1),
        (1, 9),
        *(
            pytest.param(*sizes, marks=pytest.mark.exhaustive)
            for sizes in [(1, 256), (256, 3), (2, 1), (256, 1), (3, 256), (64, 64), (256, 256)]
        ),
    ],
)
def test_numbers_of_examples_and_objectives(examples, objectives):
    model = model_of()
    check(model, batch(model, examples), torch.randn(objectives, examples))


@pytest.mark.exhaustive
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e20])
def test_scales_side_by_side(scale):
    """Float32 holds these gradients, and each objective is exact by its own scale."""
    model = model_of()
    rows = torch.randn(3, 4, dtype=torch.float64)
    rows[1] *= scale
    losses_of, named = batch(model, 4), mixtures(rows)
    found = gs.inspect(gs.PerExample(losses_of(), named), model)
    expected = gs.inspect(apart(losses_of(), named), model)
    assert gram_error(found, expected) < CLOSE


def test_a_small_objective_keeps_its_weights_of_tokens():
    model = model_of()
    rows = torch.stack([torch.ones(4, 6), 1e-9 * torch.rand(4, 6), torch.randn(4, 1).expand(4, 6)])
    *_, method = check(model, batch(model, 4, 6), rows)
    assert method.startswith("2 passes")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("rank", "said"), [(1, "one pass"), (2, "2 passes"), (6, "5 passes")])
def test_tokens_by_rank(rank, said):
    model = model_of()
    rows = torch.einsum("nbr,brt->nbt", torch.randn(7, 4, rank), torch.randn(4, rank, 5))
    *_, method = check(model, batch(model, 4, 5), rows)
    assert method.startswith(said)


def test_weights_of_other_kinds():
    model = model_of()
    losses_of = batch(model, 4)
    kinds = {
        "bool": torch.tensor([True, False, True, True]),
        "list": [0.5, 1, 2, -1],
        "array": np.arange(4, dtype=np.float16),
        "whole": torch.arange(4),
        "half": torch.arange(4).bfloat16(),
        "nothing": torch.zeros(4),
    }
    found = gs.inspect(gs.PerExample(losses_of(), kinds), model)
    plain = {
        k: torch.as_tensor(np.asarray(v.float() if k == "half" else v)) for k, v in kinds.items()
    }
    assert gram_error(found, gs.inspect(apart(losses_of(), plain), model)) < CLOSE


def test_every_example():
    model = model_of()
    for tokens, names in ((None, None), (3, list("abcd"))):
        losses_of = batch(model, 4, tokens)
        found = gs.inspect(gs.PerExample(losses_of(), names=names), model)
        named = dict(zip(names or map(str, range(4)), losses_of().view(4, -1).sum(1), strict=True))
        expected = gs.inspect(named, model)
        assert gram_error(found, expected) < CLOSE
        assert found.groups.keys() == expected.groups.keys()

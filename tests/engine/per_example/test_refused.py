"""Models and losses that mix examples are refused, with nothing changed; so are wrong arguments."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.mixing import MIXING, two
from tests.support.per_example import check, mixtures
from tests.support.per_example_models import D


def refused(surgery, model, given):
    """Its message; `.grad` and state are as before."""
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, values = surgery.state_dict(), [p.detach().clone() for p in model.parameters()]
    with pytest.raises(gs.InputError) as error:
        surgery.backward(given)
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    assert str(surgery.state_dict()) == str(before)
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))
    return str(error.value)


USUAL = ("written out]", "contrastive loss]", "in training]")


@pytest.mark.sampled(keep=lambda name: name.endswith(USUAL))
@pytest.mark.parametrize("kind", MIXING)
def test_mixed_examples(kind):
    torch.manual_seed(0)
    make, named = MIXING[kind]
    model, losses_of = make()
    losses = losses_of()
    weights = mixtures(torch.randn(2, len(losses)))
    message = refused(gs.Surgery("mgda", model), model, gs.PerExample(losses, weights))
    assert named in message
    assert "dict of scalars" in message
    assert "Nothing was changed" in message


def test_switched_to_training_later():
    torch.manual_seed(0)
    make, _ = MIXING["batch normalization in training"]
    model, losses_of = make()
    surgery = gs.Surgery("mgda", model)
    for training in (False, False, True):
        model.train(training)
        losses = losses_of()
        given = gs.PerExample(losses, mixtures(torch.randn(2, len(losses))))
        if training:
            assert "norm.weight" in refused(surgery, model, given)
        else:
            surgery.backward(given)


@pytest.mark.parametrize("ordered", [True, False])
def test_packed_sequences(ordered):
    torch.manual_seed(0)
    body, lengths = nn.GRU(D, 5), [5, 4, 2, 1] if ordered else [2, 5, 1, 4]
    x = torch.randn(5, 4, D, requires_grad=True)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=ordered)
    losses = body(packed)[1][-1].square().sum(1)
    given = gs.PerExample(losses, mixtures(torch.randn(2, 4)))
    assert "give them padded" in refused(gs.Surgery("mgda", body), body, given)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "detached",
    [
        lambda m, h: h - h.detach().mean(0),
        lambda m, h: h / h.detach().norm(dim=0),
        lambda m, h: h * (h.detach() @ h.detach().T).softmax(1).sum(0)[:, None],
    ],
)
def test_what_is_detached_across_examples_is_right(detached):
    torch.manual_seed(0)
    model, losses_of = two(detached)
    check(model, losses_of, torch.randn(3, 6), "upgrad")


def losses_of(model, count=4):
    torch.manual_seed(1)
    return model(torch.randn(count, D))[:, 0].square()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(D, 1)


ONES = torch.ones(4)
WRONG = {
    "reduced": (lambda x: (x.mean(), {"a": ONES}), {}, "not reduced"),
    "no tensor": (lambda x: (x.tolist(), {"a": ONES}), {}, "not reduced; got list"),
    "three dimensions": (lambda x: (x.view(4, 1, 1), {"a": ONES}), {}, "got [4, 1, 1]"),
    "no examples": (lambda x: (x[:0], {"a": ONES[:0]}), {}, "not reduced"),
    "detached": (lambda x: (x.detach(), {"a": ONES}), {}, "requires grad"),
    "complex": (lambda x: (x + 1j * x, {"a": ONES}), {}, "real tensor"),
    "a list of losses": (lambda x: ([*x], {"a": ONES}), {}, "torch.stack(losses)"),
    "a number": (lambda x: (x.sum(), {"a": ONES}), {}, "reduction='none'"),
    "too few weights": (lambda x: (x, {"a": ONES[:3]}), {}, "one weight per loss"),
    "a column of weights": (lambda x: (x, {"a": ONES[:, None]}), {}, "one weight per loss"),
    "flat tokens": (lambda x: (x, {"a": ONES.view(2, 2)}), {}, "losses.view(2, 2) (or"),
    "flat tokens, by example": (lambda x: (x, {"a": ONES[:2]}), {}, "losses.view(2, -1).sum(1)"),
    "tokens, by example": (lambda x: (x.repeat(2, 1).T, {"a": ONES}), {}, "expand_as(losses)"),
    "tokens first": (lambda x: (x.repeat(2, 1), {"a": ONES.repeat(2, 1).T}), {}, "give losses.T."),
    "tokens first, by example": (lambda x: (x.repeat(2, 1), {"a": ONES}), {}, "give losses.T,"),
    "NaN": (lambda x: (x, {"a": ONES, "b": ONES * float("nan")}), {}, "weights of 'b' have NaN"),
    "infinity": (lambda x: (x, {"a": ONES / 0}), {}, "NaN or infinity"),
    "weights that require grad": (lambda x: (x, {"a": ONES.clone().requires_grad_()}), {}, "'a'"),
    "complex weights": (lambda x: (x, {"a": ONES + 0j}), {}, "complex (torch.complex64)"),
    "complex array": (lambda x: (x, {"a": ONES.numpy() + 0j}), {}, "complex (complex64)"),
    "sparse": (lambda x: (x, {"a": ONES.to_sparse()}), {}, "give weights.to_dense"),
    "without values": (lambda x: (x, {"a": ONES.to("meta")}), {}, "a meta tensor"),
    "words": (lambda x: (x, {"a": ["w", "x", "y", "z"]}), {}, "no numbers"),
    "no mixtures": (lambda x: (x, {}), {}, "mixtures is a dict"),
    "a list": (lambda x: (x, [ONES]), {}, "mixtures is a dict"),
    "a matrix": (lambda x: (x, ONES[None]), {}, "dict(zip(names, matrix))"),
    "a number as name": (lambda x: (x, {1: ONES}), {}, "name is a string"),
    "names of mixtures": (lambda x: (x, {"a": ONES}), {"names": ["a"]}, "names are of examples"),
    "too few names": (lambda x: (x, None), {"names": ["a", "b"]}, "4 different strings"),
    "the same names": (lambda x: (x, None), {"names": ["a"] * 4}, "of them 1 different"),
    "numbers as names": (lambda x: (x, None), {"names": [1, 2, 3, 4]}, "4 different strings"),
    "a range as names": (lambda x: (x, None), {"names": range(4)}, "got 0, a int: give list(map("),
    "a string as names": (lambda x: (x, None), {"names": "abcd"}, "4 different strings"),
    "verify": (lambda x: (x, {"a": ONES}), {"verify": "sometimes"}, "got 'sometimes'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arguments(model, kind):
    make, options, part = WRONG[kind]
    with pytest.raises(gs.InputError) as error:
        gs.PerExample(*make(losses_of(model)), **options)
    assert part in str(error.value)


def test_strategies_with_memory_take_mixtures_only(model):
    surgery = gs.Surgery("db-mtl", model)
    assert "'db-mtl'" in refused(surgery, model, gs.PerExample(losses_of(model)))
    surgery.backward(gs.PerExample(losses_of(model), {"a": ONES, "b": torch.arange(4)}))


def test_several_in_one_call(model):
    losses = losses_of(model)
    one = gs.PerExample(losses, {"a": ONES})
    for given in ({"a": one, "b": losses.sum()}, [one, one]):
        with pytest.raises(gs.InputError, match="One PerExample holds all objectives"):
            gs.backward(given, model, "mgda")
    with pytest.raises(gs.InputError, match=r"gs.PerExample\(losses, {name: weights}\)"):
        gs.backward({"a": losses, "b": losses * 2}, model, "mgda")


def test_losses_that_are_not_finite(model):
    losses = losses_of(model) * torch.tensor([1.0, float("nan"), 1.0, 1.0])
    given = gs.PerExample(losses, {"a": ONES, "b": ONES / 2})
    for p in model.parameters():
        p.grad = None
    with pytest.raises(gs.NonFiniteError, match="the loss of example 1 has NaN or inf"):
        gs.Surgery("mgda", model).backward(given)
    assert model.weight.grad is None

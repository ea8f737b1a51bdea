"""What is said of a step: how gradients were had, and which examples are not finite."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.per_example_models import D

B, T = 4, 3
EACH = "a pass per objective"


def given(model, tokens=False, **options):
    torch.manual_seed(0)
    losses = model(torch.randn(B, T, D))[..., 0].square()
    torch.manual_seed(1)
    if tokens:
        return gs.PerExample(losses, {k: torch.randn(B, T) for k in "ab"}, **options)
    return gs.PerExample(losses.sum(1), {k: torch.rand(B) for k in "ab"}, **options)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 1))


def test_the_method_is_said_wherever_a_pass_was_made(model):
    step = gs.backward(given(model), model, "mgda")
    assert step.method.startswith("one pass, and ")
    assert gs.backward(given(model, tokens=True), model, "mgda").method == (
        f"{EACH}, for the weights within an example"
    )
    for strategy in ("sum", "gls", "scaled-sum"):
        record = gs.backward(given(model), model, strategy)
        assert record.method == "one pass of the weighted sum"
        assert record.method in str(record)
    measured = gs.Surgery("sum", model, measure=1).backward(given(model))
    assert measured.method.startswith("one pass of the weighted sum; of the Gram matrix: one pass")
    losses = given(model).losses
    assert gs.backward({"a": losses.sum(), "b": losses[0]}, model, "mgda").method is None


def test_the_method_of_replays_and_micro_batches(model):
    surgery = gs.Surgery("mgda", model, every=2)
    surgery.backward(given(model))
    assert surgery.backward(given(model)).method == "one pass of the weighted sum"
    surgery = gs.Surgery("mgda", model)
    for _ in range(2):
        surgery.accumulate(given(model))
        surgery.accumulate(given(model))
        assert surgery.combine().method == EACH


def not_finite(model, losses, weights, strategy="mgda", verify="first"):
    with pytest.raises(gs.NonFiniteError) as error:
        gs.Surgery(strategy, model).backward(gs.PerExample(losses, weights, verify=verify))
    assert all(p.grad is None for p in model.parameters())
    return str(error.value)


WEIGHTS = {"a": torch.tensor([1.0, 0, 1, 0]), "b": torch.tensor([0, 1.0, 0, 0])}


@pytest.mark.parametrize("strategy", ["mgda", "sum", "gls"])
def test_losses_that_are_not_finite(model, strategy):
    for bad, whose in ((1, "weight there: 'b'"), (2, "weight there: 'a'"), (3, "leave it out")):
        factors = torch.ones(B)
        factors[bad] = float("nan")
        losses = model(torch.randn(B, D))[:, 0].square() * factors
        said = not_finite(model, losses, WEIGHTS, strategy)
        assert f"the loss of example {bad} has NaN or inf" in said
        assert whose in said
    losses = model(torch.randn(B, D))[:, 0].square() * factors
    with pytest.raises(gs.NonFiniteError, match="the loss of example 3 has"):
        gs.Surgery("mgda", model).accumulate(gs.PerExample(losses, WEIGHTS))


def test_gradients_that_are_not_finite(model):
    losses = model(torch.randn(B, D))[:, 0].square()
    losses = losses + (losses * torch.tensor([1.0, 0, 1, 1])).sqrt()
    for verify in ("first", "never"):
        said = not_finite(model, losses, WEIGHTS, verify=verify)
        assert "the gradient of example 1 has NaN or inf" in said
        assert "'b'" in said
        assert "'a'" not in said
        losses = losses + 0

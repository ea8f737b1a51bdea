"""Models converted to another dtype midway."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.three_tasks import F64, Tasks, trunk


@pytest.mark.parametrize(
    "convert", [nn.Module.double, nn.Module.half, nn.Module.bfloat16], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("given", ["module", "none"])
def test_a_model_converted_while_gradients_are_gathered(convert, given):
    model, expected = Tasks(torch.float32), Tasks(torch.float32)
    surgery = gs.Surgery("mgda", model if given == "module" else None)
    surgery.accumulate(model.losses(1.0))
    convert(model)
    held = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for _ in range(2):
        with pytest.raises(gs.InputError, match=r"combine: .*was float32 .*discard\(\)"):
            surgery.combine()
    losses = model.losses(1.0)
    with pytest.raises(gs.InputError, match=r"accumulate: .*was float32 .*discard\(\)"):
        surgery.accumulate(losses)
    assert [p.grad for p in model.parameters()] == held == [None] * len(held)
    model.float()
    surgery.combine()  # what was gathered is still there
    gs.backward(expected.losses(1.0), expected, "mgda")
    assert torch.allclose(
        trunk(model), trunk(expected), rtol=1e-2 if convert is not nn.Module.double else 1e-5
    )
    surgery.accumulate(model.losses(1.0))
    model.double()
    surgery.discard()
    model.zero_grad()
    surgery.backward(model.losses(1.0))
    assert model.trunk[0].weight.grad.dtype == F64


@pytest.mark.parametrize("name", ["sum", "mgda", "graddrop", "scaled-sum"])
@pytest.mark.parametrize("part", ["whole", "trunk"])
def test_a_model_converted_after_the_forward_pass(name, part):
    """Autograd finds no way from the old graph to a converted parameter: an error, in place of no
    gradient and no word.
    """
    model = Tasks(torch.float32)
    surgery = gs.Surgery(name, model)
    losses = model.losses(1.0)
    (model if part == "whole" else model.trunk).double()
    with pytest.raises(gs.InputError, match="converted to float64 .*after the forward pass"):
        surgery.backward(losses, retain_graph=True)
    with pytest.raises(gs.InputError, match="converted to float64"):
        surgery.accumulate(losses)
    assert all(p.grad is None for p in model.parameters())
    surgery.backward(model.double().losses(1.0))
    assert all(p.grad is not None for p in model.parameters())


def test_a_gradient_of_none_from_a_function_is_no_conversion():
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g, None

    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    surgery = gs.Surgery("mgda", [a, b])
    surgery.backward({"x": Nothing.apply(a, b).sum(), "y": a.pow(2).sum()})
    assert b.grad is None
    assert a.grad is not None

"""Functions that fill .grad within their own backward pass are noticed and undone."""

import threading

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.two_heads import losses_of


class Reversible(torch.autograd.Function):
    """x + f(x), which makes the gradients of f's parameters by a backward pass inside its own."""

    @staticmethod
    def forward(ctx, x, f):
        ctx.f, ctx.x = f, x.detach()
        return x + f(x)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            x = ctx.x.clone().requires_grad_()
            y = x + ctx.f(x)
        torch.autograd.backward(y, gradient)
        return x.grad, None


class Assigns(torch.autograd.Function):
    """Puts a gradient into .grad by hand."""

    @staticmethod
    def forward(ctx, x, f):
        ctx.f, ctx.x = f, x.detach()
        return f(x)

    @staticmethod
    def backward(ctx, gradient):
        layer = (
            ctx.f[0] if isinstance(ctx.f, nn.Sequential) else ctx.f.__closure__[0].cell_contents[0]
        )
        layer.weight.grad = torch.ones_like(layer.weight)
        return gradient, None


class Block(nn.Module):
    def __init__(self, function=Reversible, closure=False):
        super().__init__()
        torch.manual_seed(0)
        self.i, self.f = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.a, self.b = nn.Linear(8, 1), nn.Linear(8, 1)
        self.function, self.closure = function, closure

    def forward(self, x):
        block = self.f
        z = self.function.apply(self.i(x), (lambda x: block(x)) if self.closure else block)
        return self.a(z), self.b(z)


FILLING = {
    "backward": lambda model, losses: gs.Surgery("mgda", model).backward(losses),
    "sum": lambda model, losses: gs.Surgery("sum", model).backward(losses),
    "memory": lambda model, losses: gs.Surgery("mgda", model, memory="low").backward(losses),
    "one-shot": lambda model, losses: gs.backward(losses, model, "upgrad"),
    "no parameters": lambda model, losses: gs.backward(losses, None, "upgrad"),
    "list": lambda model, losses: gs.backward(losses, list(model.parameters()), "upgrad"),
    "trunk alone": lambda model, losses: gs.backward(losses, model.i, "upgrad"),
    "groups": lambda model, losses: gs.backward(
        losses, {"t": [*model.i.parameters(), *model.f.parameters()]}, "mgda"
    ),
    "inspect": lambda model, losses: gs.inspect(losses, model),
    "accumulate": lambda model, losses: gs.Surgery("mgda", model).accumulate(losses),
    "not finite": lambda model, losses: gs.Surgery("mgda", model).backward(
        {**losses, "b": losses["b"] * float("nan")}
    ),
}


@pytest.mark.parametrize("function", [Reversible, Assigns])
@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("way", FILLING)
def test_a_function_that_fills_grad_is_an_error_and_undone(way, function, closure):
    model, x = Block(function, closure), torch.randn(16, 4)
    losses = losses_of(model, x)
    with pytest.raises(
        gs.InputError, match=r"fills \.grad within its own backward pass.*use_reentrant=False"
    ):
        FILLING[way](model, losses)
    assert all(p.grad is None for p in model.parameters())


def test_what_was_added_in_place_is_said_to_stay():
    model, x = Block(), torch.randn(16, 4)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    surgery = gs.Surgery("mgda", model)
    with pytest.raises(
        gs.InputError, match=r"added to the \.grad of f\.0\.weight, f\.0\.bias cannot be undone"
    ):
        surgery.backward(losses_of(model, x))
    assert all(
        not p.grad.any() for name, p in model.named_parameters() if not name.startswith("f.")
    )
    assert surgery.state_dict()["step"] == 0


def test_functions_that_fill_nothing_and_reached_blocks_work_as_ever():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, f):
            ctx.f = f
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2, None

    model, x = Block(Double), torch.randn(16, 4)
    for p in model.f.parameters():  # from another part of the program
        p.grad = torch.ones_like(p)
    record = gs.Surgery("mgda", model).backward(losses_of(model, x))
    assert record["a+b"].parameters == 2
    assert all(bool((p.grad == 1).all()) for p in model.f.parameters())


def test_another_thread_may_train_parameters_that_no_loss_here_reaches():
    net, aux, x = (
        nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 64)),
        nn.Linear(8, 2),
        torch.randn(4, 8),
    )
    surgery, over = gs.Surgery("mgda", nn.ModuleList([net, aux])), []

    def other():
        while not over:
            aux(x).pow(2).mean().backward()
            aux.zero_grad()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(30):
            y = net(torch.randn(32, 16))
            surgery.backward({"a": y.mean(), "b": y.pow(2).mean()})
    finally:
        over.append(1)
        thread.join()


class FillsItsInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, gradient):
        x, w = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            torch.autograd.backward(again @ w, gradient)
        return again.grad, None


@pytest.mark.parametrize("way", ["inspect", "mgda", "measure", "memory", "accumulate", "nan"])
def test_a_function_that_fills_a_reached_parameter_is_an_error(way):
    before, w, x = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4)), torch.randn(5, 4)
    parameters = [*before.parameters(), w]
    y = FillsItsInput.apply(before(x), w)
    losses = {
        "a": y.pow(2).mean(),
        "b": -5 * y.pow(2).mean() * (float("nan") if way == "nan" else 1),
    }
    ways = {
        "inspect": lambda: gs.inspect(losses, parameters),
        "measure": lambda: gs.Surgery("sum", parameters, measure=1).backward(losses),
        "memory": lambda: gs.Surgery("mgda", parameters, memory="low").backward(losses),
        "accumulate": lambda: gs.Surgery("mgda", parameters).accumulate(losses),
    }
    with pytest.raises(gs.InputError, match=r"fills \.grad"):
        ways.get(way, lambda: gs.Surgery("mgda", parameters).backward(losses))()
    assert all(p.grad is None for p in parameters)

"""Leaves that are no nn.Parameter, inputs, and weights that require grad."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.two_heads import Two, losses_of


def pinn(coefficient, x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    y = net(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    losses = {
        "data": (y - torch.exp(-2 * x)).pow(2).mean(),
        "ode": (slope + coefficient * y).pow(2).mean(),
    }
    return net, losses


@pytest.mark.parametrize("strategy", ["sum", "upgrad", "mgda", "uw", "scaled-sum"])
@pytest.mark.parametrize(
    "settings", [{}, {"memory": "low"}, {"method": "gradients"}, {"every": 2}], ids=str
)
@pytest.mark.parametrize("given", ["net", "none", "listed"])
def test_a_plain_leaf_gets_what_loss_backward_would_give_it(strategy, settings, given):
    coefficient = torch.tensor(0.5, requires_grad=True)
    log_variance = torch.zeros((), requires_grad=True)
    inputs = torch.linspace(0, 1, 6)[:, None]
    surgery = None
    for _ in range(2):
        x = inputs.clone().requires_grad_()
        net, losses = pinn(coefficient, x)
        losses["data"] = losses["data"] * torch.exp(-log_variance) + log_variance
        leaves = [coefficient, log_variance, x]
        expected = torch.autograd.grad(sum(losses.values()), leaves, retain_graph=True)
        given_now = {
            "net": net,
            "none": None,
            "listed": [*net.parameters(), coefficient, log_variance],
        }[given]
        surgery = gs.Surgery(strategy, given_now, **settings)
        coefficient.grad = log_variance.grad = None
        surgery.backward(losses)
        weighted = strategy == "uw"  # its weights belong to the losses, whatever they reach
        for leaf, gradient in zip(leaves, expected, strict=True):
            assert leaf.grad is not None
            if not weighted and not (given == "listed" and leaf is not x):
                assert torch.allclose(leaf.grad, gradient, rtol=1e-5, atol=1e-7)


def test_a_plain_leaf_behind_features_gets_the_plain_sum():
    torch.manual_seed(0)
    scale = torch.tensor(1.5, requires_grad=True)
    trunk, a, b = nn.Linear(4, 5), nn.Linear(5, 1), nn.Linear(5, 1)
    z = trunk(torch.randn(8, 4)).tanh() * scale
    losses = {"a": a(z).pow(2).mean(), "b": (b(z) - 1).pow(2).mean()}
    (expected,) = torch.autograd.grad(sum(losses.values()), [scale], retain_graph=True)
    gs.backward(losses, nn.ModuleList([trunk, a, b]), "mgda", features=z)
    assert torch.allclose(scale.grad, expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["dict", "list", "tensor", "scalar", "accumulate", "option"])
def test_weights_that_require_grad_are_an_error_that_says_how_to_learn_them(form):
    model, log_weights = Two(), torch.zeros(2, requires_grad=True)
    weights = {
        "dict": {"a": log_weights[0].exp(), "b": 1.0},
        "tensor": log_weights.exp(),
        "scalar": log_weights[0].exp(),
    }
    weights["list"] = [log_weights[0].exp(), 1.0]
    weights["accumulate"] = weights["option"] = weights["dict"]
    losses = losses_of(model, torch.randn(8, 4))
    given = list(losses.values()) if form in ("list", "tensor") else losses
    option = form == "option"
    surgery = (
        gs.Surgery("upgrad", model, preference=weights[form])
        if option
        else gs.Surgery("mgda", model)
    )
    step = surgery.accumulate if form == "accumulate" else surgery.backward
    with pytest.raises(gs.InputError, match="requires grad would get no gradient"):
        step(given, **({} if option else {"weights": weights[form]}))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_part_of_a_batch_that_no_loss_takes_gets_zeros_as_in_torch(strategy):
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    common, first, second = (nn.Linear(4, 3) for _ in range(3))
    model = nn.ModuleList([common, first, second])
    none = x[:, 0] > 99  # no example for the second expert in this batch
    y = torch.cat([first(x)[~none], second(x[none])]) + common(x)
    gs.Surgery(strategy, model).backward({"a": y.pow(2).mean(), "b": (y - 1).abs().mean()})
    assert all(p.grad is not None for p in model.parameters())


def test_a_bad_gradient_of_an_input_alone_stops_nothing():
    model = nn.Linear(2, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for strategy in ("mgda", "sum"):
        surgery = gs.Surgery(strategy, model)
        for given in (scaler, None):
            x = torch.zeros(4, 2, requires_grad=True)
            u = model(x)[:, 0] * (1 + x.pow(2).sum(1).sqrt())
            model.zero_grad()
            record = surgery.backward({"a": (u - 1).pow(2).mean(), "b": u.mean()}, scaler=given)
            assert not record.overflow
            assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
            assert bool(torch.isnan(x.grad).any())


def test_an_input_of_another_layout_gets_none_and_is_named_once():
    a, model, x = torch.eye(4).to_sparse().requires_grad_(), nn.Linear(4, 2), torch.randn(4, 4)
    surgery = gs.Surgery("mgda", model)
    for step in range(2):
        y = torch.sparse.mm(a, model(x))
        if step == 0:
            with pytest.warns(UserWarning, match="sparse_coo: it gets no gradient here"):
                surgery.backward({"a": y[:, 0].mean(), "b": y[:, 1].mean()})
        else:
            surgery.backward({"a": y[:, 0].mean(), "b": y[:, 1].mean()})
    assert model.weight.grad is not None


def test_observed_losses_that_have_a_graph_are_taken_as_numbers():
    model = nn.Linear(3, 2)
    surgery = gs.Surgery("famo", model)
    for _ in range(2):
        first, second = model(torch.ones(4, 3)).pow(2).mean(0)
        surgery.backward({"a": first, "b": second})
        first, second = model(torch.ones(4, 3)).pow(2).mean(0)
        surgery.observe({"a": first, "b": second})  # warnings are errors here


def test_independent_batches_as_lists_are_told_to_be_dicts():
    model = nn.Linear(3, 2)
    batches = [list(model(torch.ones(3)).pow(2)) for _ in range(3)]
    with pytest.raises(gs.InputError, match="give one dict of losses per batch"):
        gs.Surgery("sdmgrad", model).backward(batches)

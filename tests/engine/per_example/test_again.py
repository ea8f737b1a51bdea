"""Checks of independence after the first: what has changed since, and at most 64 steps apart."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.per_example.plan import Plan
from tests.engine.per_example.test_checked import CHECKED, ONE, B, Steps, mlp, squares
from tests.support.per_example import mixtures
from tests.support.per_example_models import D


def test_again_after_four_eight_and_so_on():
    model = mlp()
    step = Steps(model)
    found = [step(squares(model, torch.randn(B, D))) for _ in range(10)]
    assert [i for i, method in enumerate(found) if method == CHECKED] == [0, 4, 8]
    assert set(found) == {ONE, CHECKED}


def test_at_most_64_steps_lie_between_checks():
    plan = Plan({})
    checked = [plan.steps for plan.steps in range(300) if plan.due]
    assert checked == [4, 8, 16, 32, 64, 128, 192, 256]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_in_half_precision_of_a_model_in_float32(dtype):
    model, x = mlp(), torch.randn(B, D)
    surgery, named = gs.Surgery("mgda", model), mixtures(torch.randn(2, B))
    losses = model(x).square().sum(1).to(dtype)
    assert surgery.backward(gs.PerExample(losses, named)).method == CHECKED
    rows = torch.randn(2, B, 1) * torch.randn(B, 3)  # one profile over an example's tokens
    losses = model(x.view(B, 1, D).expand(B, 3, D)).square().sum(2).to(dtype)
    surgery.backward(gs.PerExample(losses, mixtures(rows)))
    losses = (model(x) - model(x).mean(0)).square().sum(1).to(dtype)
    with pytest.raises(gs.InputError, match="mixes examples"):
        surgery.backward(gs.PerExample(losses, named))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda h, c: h - c * h.mean(0),
        lambda h, c: h - torch.tensor(c) * h.mean(0),
        lambda h, c: torch.sub(h, h.mean(0), alpha=c),
        lambda h, c: torch.lerp(h, h.mean(0).expand_as(h), c),
    ],
    ids=["factor", "tensor", "alpha", "lerp"],
)
def test_a_coefficient_that_opens(mixed):
    model = mlp()
    step = Steps(model)

    def losses_of(c):
        x = torch.randn(B, D)
        return lambda: model[2](mixed(model[1](model[0](x)), c)).square().mean(1)

    assert step(losses_of(0.0)).startswith(CHECKED)
    assert step(losses_of(0.0)).endswith("as in each step: one may come to act on others")
    with pytest.raises(gs.InputError, match="mixes examples"):
        step(losses_of(0.3))


def test_positions_that_all_examples_share():
    torch.manual_seed(0)
    table, positions, head = nn.Embedding(9, D), nn.Embedding(6, D), nn.Linear(D, 3)
    tokens = torch.randint(9, (B, 6))

    def losses():
        return head(torch.tanh(table(tokens) + positions(torch.arange(6)))).square().mean((1, 2))

    model = nn.ModuleList([table, positions, head])
    weights = mixtures(torch.randn(2, B))
    record = gs.backward(gs.PerExample(losses(), weights), model, "mgda")
    assert record.method == CHECKED
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    plain = losses()
    gs.backward({name: (w * plain).sum() for name, w in weights.items()}, model, "mgda")
    for one, p in zip(found, model.parameters(), strict=True):
        assert torch.allclose(one, p.grad, atol=1e-6)


ORDERS = {
    "slices": (lambda o: (o[:B], o[B:]), lambda o: (o[::2], o[1::2])),
    "unbind and stack": (
        lambda o: (torch.stack(o.unbind(0)[:B]), o[B:]),
        lambda o: (torch.stack([o.unbind(0)[k] for k in (0, 2, 4, 6)]), o[B:]),
    ),
    "split": (
        lambda o: (o.split(B)[0], o.split(B)[1]),
        lambda o: (o.split(B)[1], o.split(B)[1]),
    ),
    "select": (lambda o: (o.view(2, B, 2)[0], o[B:]), lambda o: (o.view(2, B, 2)[1], o[B:])),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_the_same_nodes_in_another_order(kind):
    model, x = mlp(), torch.randn(2 * B, D)
    surgery, named = gs.Surgery("mgda", model), mixtures(torch.randn(2, B))

    def method_of(parts):
        one, other = parts(model(x))
        losses = gs.PerExample((one - other).square().sum(1), named)
        try:
            return surgery.backward(losses).method
        except gs.InputError as error:
            return str(error)

    first, second = ORDERS[kind]
    assert [method_of(first) for _ in range(2)] == [CHECKED, ONE]
    assert method_of(second) != ONE
    assert method_of(first) == ONE


def test_slices_of_batches_of_other_sizes_are_the_same_graph():
    model = mlp()
    pairs, tokens = Steps(model), Steps(model)

    def differences(x, count):
        out = model(x)
        return (out[:count] - out[count:]).square().sum(1)

    for count in (3, 4, 5):
        x, longer = torch.randn(2 * count, D), torch.randn(4, 2 + count, D)
        said = CHECKED if count == 3 else ONE
        assert pairs(lambda x=x, count=count: differences(x, count)) == said
        assert tokens(lambda x=longer: model(x)[:, 1:-1].square().mean((1, 2))) == said

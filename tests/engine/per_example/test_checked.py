"""When independence is checked: at first, and whenever something shows that was not seen before."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs
from gradsurgery.gradients.per_example.layout import Layout, agree
from tests.support.mixing import two
from tests.support.per_example import CLOSE, apart, distance, gradients, mixtures
from tests.support.per_example_models import Calling, D

B = 4
CHECKED, ONE = "one pass, and 3 to check that examples are independent", "one pass"


class Steps:
    """Steps of one Surgery, each compared with a pass per objective."""

    def __init__(self, model, strategy="unit-sum", verify="first"):
        self.model, self.verify = model, verify
        self.surgery, self.plain = gs.Surgery(strategy, model), gs.Surgery(strategy, model)

    def __call__(self, losses_of, factors=None):
        losses = losses_of()
        factors = torch.randn(3, *losses.shape) if factors is None else factors
        named, found = mixtures(factors), []
        for surgery, given in (
            (self.surgery, gs.PerExample(losses, named, verify=self.verify)),
            (self.plain, apart(losses_of(), named)),
        ):
            self.model.zero_grad()
            record = surgery.backward(given)
            found.append((record, gradients(self.model)))
        (record, own), (_, expected) = found
        far, size = distance(own, expected)
        assert far <= 10 * CLOSE * size
        return record.method


def squares(model, x):
    return lambda: model(x).square().flatten(1).mean(1)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 2))


@pytest.mark.exhaustive
def test_first_always_and_never():
    model = mlp()
    for verify, methods in {
        "first": [CHECKED, ONE, ONE],
        "always": [CHECKED.replace("3", "2")] * 3,
        "never": [ONE] * 3,
    }.items():
        step = Steps(model, verify=verify)
        assert [step(squares(model, torch.randn(B, D))) for _ in methods] == methods


def test_graphs_in_turn_and_batches_of_other_sizes():
    model = mlp()
    step = Steps(model)

    def other():
        return model(torch.ones(B, D)).abs().mean(1)

    assert [step(losses_of) for losses_of in (other, squares(model, torch.ones(B, D)))] == [
        CHECKED
    ] * 2
    for count in (B, 7, 1):
        assert step(squares(model, torch.randn(count, D))) == ONE
        assert step(other) == ONE


def test_a_first_step_that_was_not_checked_proves_nothing():
    model, losses_of = two(lambda m, h: h + h.mean(0))
    surgery = gs.Surgery("mgda", model)
    losses = model(torch.randn(1, D))[:, 0].square()
    surgery.backward(gs.PerExample(losses, {"a": [1.0], "b": [2.0]}))
    losses = losses_of()
    named = mixtures(torch.randn(2, len(losses)))
    surgery.backward(gs.PerExample(losses, named, verify="never"))
    with pytest.raises(gs.InputError, match="first.weight"):
        surgery.backward(gs.PerExample(losses_of(), named))


def sequence_first():
    """A layer on [T, B, D], whose gradient is zero while the gate is."""
    torch.manual_seed(0)
    return Calling(
        lambda m, x: x + m.gate(torch.tanh(m.inside(x.transpose(0, 1)))).transpose(0, 1),
        inside=nn.Linear(D, D),
        gate=nn.Linear(D, D),
    )


@pytest.mark.sampled(keep=lambda name: name.endswith("[4]"))
@pytest.mark.parametrize("length", [B, 2 * B])
def test_a_gradient_of_zero_says_nothing_of_the_layout(length):
    model = sequence_first()
    nn.init.zeros_(model.gate.weight)
    step, x = Steps(model), torch.randn(B, length, D)
    assert [step(squares(model, x)) for _ in range(2)] == [CHECKED, ONE]
    nn.init.normal_(model.gate.weight)
    assert [step(squares(model, x)) for _ in range(2)] == [CHECKED, ONE]


@pytest.mark.exhaustive
def test_one_example_first_then_as_many_as_tokens():
    model = sequence_first()
    step = Steps(model)
    for count in (1, B, 1, 2, B):
        step(squares(model, torch.randn(count, B, D)))


def test_only_some_entries_have_a_gradient():
    """Those at [b, b], with which examples may be rows or columns."""
    model = mlp()
    model.append(nn.Linear(2, B))
    step, x, whole = Steps(model), torch.randn(B, D), torch.zeros(())
    assert step(lambda: model(x).diagonal().square() + whole * 0) == CHECKED

    def losses_of(weight):
        out = model(x)
        return (out * weight).square().sum(1)

    step = Steps(model)
    assert step(lambda: losses_of(torch.eye(B))) == CHECKED
    assert step(lambda: losses_of(torch.ones(B, B))) == CHECKED
    assert step(lambda: losses_of(torch.ones(B, B))) == ONE


def test_a_gate_that_opens():
    model, losses_of = two(lambda m, h: h + m.gate * h.mean(0), gate=nn.Parameter(torch.zeros(())))
    surgery, named = gs.Surgery("mgda", model), mixtures(torch.randn(2, 6))
    for _ in range(2):
        surgery.backward(gs.PerExample(losses_of(), named))
    nn.init.ones_(model.gate)
    with pytest.raises(gs.InputError, match="first.weight"):
        surgery.backward(gs.PerExample(losses_of(), named))


@pytest.mark.sampled(keep=lambda name: name.endswith("[index]"))
@pytest.mark.parametrize("pick", ["index", "index_select", "gather"])
def test_examples_in_another_order_each_step(pick):
    model, order, x = mlp(), torch.arange(B), torch.randn(B, D)

    def losses_of():
        h = model(x)
        if pick == "gather":
            h = h.gather(0, order[:, None].expand(-1, 2))
        else:
            h = h[order] if pick == "index" else h.index_select(0, order)
        return h.square().sum(1)

    surgery, named = gs.Surgery("mgda", model), mixtures(torch.randn(2, B))
    surgery.backward(gs.PerExample(losses_of(), named))
    order = torch.tensor([1, 0, 3, 2])
    with pytest.raises(gs.InputError, match="mixes examples"):
        surgery.backward(gs.PerExample(losses_of(), named))


@pytest.mark.exhaustive
def test_the_last_token_of_each_example():
    model = mlp()
    step, every = Steps(model), torch.arange(B)
    for k in range(3):
        x, last = torch.randn(B, 3, D), torch.randint(3, (B,))
        method = step(lambda x=x, last=last: model(x)[every, last].square().sum(1))
        assert method == (ONE if k else CHECKED)


def test_the_same_nodes_over_the_other_dimension():
    model, x = nn.Linear(D, B), torch.randn(B, D)
    step = Steps(model)

    def over(dim, how):
        return lambda: how(model(x).sin(), dim)

    for how in (torch.mean, torch.amax, torch.var, torch.linalg.vector_norm):
        for dim in (1, 0):  # of [B, B]: an example per row, then per output of the layer
            assert step(over(dim, lambda y, dim, how=how: how(y, dim=dim))).endswith(CHECKED[3:])
    step(over(1, lambda y, dim: y.softmax(dim).square().sum(1)))
    with pytest.raises(gs.InputError, match="mixes examples"):
        step(over(0, lambda y, dim: y.softmax(dim).square().sum(1)))


def test_a_hook_that_comes_later():
    model, x = mlp(), torch.randn(B, D)
    step = Steps(model)
    step(squares(model, x))
    handle = model[0].weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
    assert "for 0.weight (a hook acts on its gradient)" in step(squares(model, x))
    handle.remove()
    step(squares(model, x))


@pytest.mark.exhaustive
def test_hooks_on_outputs():
    model, x = mlp(), torch.randn(B, D)
    step = Steps(model)
    model[1].register_full_backward_hook(lambda m, inside, outside: (inside[0] * 2,))
    step(squares(model, x))

    def losses_of():
        h = model[0](x)
        h.register_hook(lambda g: g / g.norm())
        return model[2](h).square().sum(1)

    losses = losses_of()
    with pytest.raises(gs.InputError, match="0.weight"):
        gs.backward(gs.PerExample(losses, mixtures(torch.randn(2, B))), model, "mgda")


@pytest.mark.exhaustive
def test_inputs_that_require_grad():
    model = mlp()
    surgery, named = gs.Surgery("upgrad", model), mixtures(torch.randn(3, B))
    for k in range(3):
        x = torch.randn(B, D, requires_grad=True)
        record = surgery.backward(gs.PerExample(squares(model, x)(), named))
        assert record.method == (ONE if k else CHECKED)


@pytest.mark.exhaustive
def test_examples_without_a_gradient():
    model, x = mlp(), torch.randn(B, D)
    step, keep = Steps(model), torch.tensor([1.0, 0.0, 1.0, 1.0])

    def losses_of():
        losses = model(x).square().sum(1)
        return torch.stack([losses[0] * 0, losses[1].detach(), *losses[2:]])

    step(losses_of)
    step(squares(model, x))
    step(lambda: F.relu(model(x).square().sum(1) * keep))


def test_a_layer_for_some_examples():
    model = two(lambda m, h: h, some=nn.Linear(D, D))[0]
    which = torch.tensor([True, False, True, True])
    x = torch.randn(B, D)

    def masked():
        h = model.first(x)
        return torch.where(which[:, None], model.some(h), h).square().sum(1)

    def picked():
        h = model.first(x)
        return h.index_put((which,), model.some(h[which])).square().sum(1)

    model.last.requires_grad_(False)
    Steps(model)(masked)
    with pytest.raises(gs.InputError, match="some.weight"):
        gs.backward(gs.PerExample(picked(), mixtures(torch.randn(2, B))), model, "mgda")


def test_an_overflow_under_a_scaler_in_the_first_step():
    model, x = mlp(), torch.randn(B, D)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    surgery = gs.Surgery("mgda", model)
    named = mixtures(torch.randn(2, B))
    surgery.backward(gs.PerExample(100 * squares(model, x)(), named), scaler=scaler)
    assert not torch.isfinite(model[0].weight.grad).all()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    model.zero_grad()
    record = surgery.backward(gs.PerExample(100 * squares(model, x)(), named), scaler=scaler)
    assert record.method == CHECKED


def test_rows_that_belong_to_one_example_in_both_layouts():
    """The first of T tokens, T being 1 modulo B: row b·T is of example b, counted either way."""
    model = mlp()
    step = Steps(model)

    def losses_of():
        return model(torch.ones(B, B + 1, D))[:, 0].square().sum(1)

    assert [step(losses_of) for _ in range(3)] == [CHECKED, ONE, ONE]


def test_several_layouts_agree_where_there_is_an_entry():
    fitting, rows = [Layout(0), Layout(0, last=True)], torch.zeros(4 * 5, 2)
    rows[::5] = 1.0
    assert agree(rows, fitting, 4)
    rows[1] = 1.0
    assert not agree(rows, fitting, 4)

"""Losses of other forms, and weights for them in order or by name."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import grads, same
from tests.support.saved import Two, assert_unchanged, data

pytestmark = pytest.mark.quick


def test_numbers_in_order_need_losses_in_order():
    model = Two()
    for names in ("10", "²³", "02", "٠١", ("00", "01"), ("0", "x")):
        for how in (
            {"weights": [1.0, 2.0]},
            {"strategy": "upgrad", "preference": [1.0, 2.0]},
            {"strategy": "constant", "preference": [1.0, 2.0]},
        ):
            losses = dict(zip(names, model(data(0)).values(), strict=True))
            with pytest.raises(
                gs.InputError, match="numbers in order do not fit the objectives.*dict by name"
            ):
                gs.backward(losses, model, **how)
            losses = dict(zip(names, model(data(0)).values(), strict=True))
            how = {
                key: dict(zip(names, value, strict=True)) if isinstance(value, list) else value
                for key, value in how.items()
            }
            gs.backward(losses, model, **how)
    with pytest.raises(gs.InputError, match="dict by name"):
        gs.get_strategy("upgrad", preference=[1.0, 2.0]).weights(
            [[1.0, 0.0], [0.0, 1.0]], objectives=("1", "0")
        )


def test_observed_losses_in_order_need_losses_in_order():
    model = Two()
    a, b = model(data(0)).values()
    surgery = gs.Surgery("famo", model)
    surgery.backward({"1": a, "0": b})
    before = surgery.state_dict()
    with pytest.raises(gs.InputError, match="observe: the losses are '1', '0'.*dict by name"):
        surgery.observe([1.0, 2.0])
    with pytest.raises(gs.InputError, match="same as strings"):
        surgery.observe({"1": 1.0, 1: 2.0, "0": 3.0})
    assert_unchanged(surgery, before)
    surgery.observe({"1": 1.0, "0": 2.0})
    square = gs.Surgery("famo", model)
    square.backward(torch.stack([*model(data(0)).values(), *model(data(1)).values()]).reshape(2, 2))
    square.observe(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert dict(square.state_dict()["observed"]) == {"0,0": 1.0, "0,1": 2.0, "1,0": 3.0, "1,1": 4.0}


def test_weights_are_one_for_each_loss():
    model = Two()
    losses = list(model(data(0)).values())
    for strategy, option in (
        ("sum", "weights"),
        ("constant", "preference"),
        ("upgrad", "preference"),
    ):
        for wrong in ([1.0], [1.0, 2.0, 3.0]):
            with pytest.raises(
                gs.InputError,
                match=rf"{option}: {len(wrong)} numbers in order do not fit "
                r"the objectives '0', '1'",
            ):
                gs.backward(losses, model, strategy, **{option: wrong}, retain_graph=True)
    assert all(p.grad is None for p in model.parameters())


def test_weights_for_a_loss_that_there_never_was_are_an_error():
    model = Two()
    surgery = gs.Surgery("mgda", model)
    with pytest.raises(gs.InputError, match="weights: unknown loss 'bb'. Did you mean 'b'"):
        surgery.backward(model(data(0)), weights={"a": 1.0, "b": 1.0, "bb": 2.0})
    assert model.a.weight.grad is None
    both = {"a": 1.0, "b": 3.0}
    surgery.backward(model(data(0)), weights=both)
    surgery.backward({"a": model(data(0))["a"]}, weights=both)  # losses may come and go
    surgery.backward({"a": model(data(0))["a"]}, weights=both)
    gathering = gs.Surgery("mgda", model)
    gathering.accumulate(model(data(0)), weights=both)
    gathering.accumulate({"a": model(data(0))["a"]}, weights=both)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, r"'x'.*got float 0.0.*leave it out"),
        (0, r"'x'.*got int 0.*leave it out"),
        (False, r"'x'.*got bool.*leave it out"),
        (None, r"'x'.*got None: leave it out"),
        (np.float32(1.5), r"'x'.*got float32.*1.5.*leave it out"),
        (np.zeros(()), r"'x'.*got ndarray.*leave it out"),
        (np.zeros(3), r"'x'.*got ndarray.*leave it out"),
        ([], r"'x'.*empty list: leave it out"),
        ({}, r"'x'.*empty dict: leave it out"),
        ([torch.ones(()), torch.ones(())], r"'x'.*got a list of 2. Sum the levels"),
        ((torch.ones(()),), r"'x'.*got a tuple of 1. Sum the levels"),
        ({"p3": torch.ones(()), "p4": torch.ones(())}, r"'x'.*got a dict of 2. Sum its values"),
        (torch.zeros(()), r"'x'.*Leave it out"),
        (torch.tensor(7), r"'x'.*int64.*leave it out"),
        (
            torch.ones(2, 3, requires_grad=True),
            r"'x'.*shape \[2, 3\].*\.mean\(\).*element a name of its own",
        ),
        (torch.ones(0, requires_grad=True), r"'x'.*shape \[0\].*leave it out"),
        ("0.5", r"'x'.*got str"),
    ],
)
def test_a_value_that_is_no_loss_is_an_error_that_says_what_to_do(value, message):
    model = Two()
    for losses in ({**model(data(0)), "x": value}, {"x": value, **model(data(0))}):
        with pytest.raises(gs.InputError, match=message):
            gs.backward(losses, model, "mgda")
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (1, 2, 3), (2, 1, 1, 3)])
def test_a_tensor_of_losses_of_any_shape_is_taken_apart_by_index(shape):
    indices = list(np.ndindex(*shape))
    torch.manual_seed(0)
    trunk, heads = (
        nn.Linear(3, 4).double(),
        nn.ModuleList(nn.Linear(4, 1).double() for _ in indices),
    )
    model = nn.ModuleList([trunk, heads])

    def losses():
        z = trunk(torch.ones(2, 3, dtype=torch.float64)).tanh()
        return [(i + 1) * head(z).pow(2).mean() for i, head in enumerate(heads)]

    def nested(flat, shape):
        if not shape:
            return flat[0]
        size = len(flat) // shape[0]
        return torch.stack(
            [nested(flat[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]
        )

    names = [",".join(map(str, index)) for index in indices]
    expected = gs.backward(dict(zip(names, losses(), strict=True)), model, "mgda")
    want = grads(model)
    model.zero_grad()
    record = gs.backward(nested(losses(), shape), model, "mgda")
    assert record.objectives == tuple(names)
    assert {n: g.parameters for n, g in record.items()} == {
        n: g.parameters for n, g in expected.items()
    }
    assert len(record) == len(names) + 1
    assert same(grads(model), want)


def test_weights_of_a_tensor_of_losses_have_its_shape():
    weight = nn.Parameter(torch.ones(6, dtype=torch.float64))
    factors = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    for weights in (
        factors,
        factors.numpy(),
        factors.tolist(),
        {f"{i},{j}": float(factors[i, j]) for i in range(2) for j in range(3)},
    ):
        weight.grad = None
        gs.backward(weight.reshape(2, 3).pow(2), [weight], "sum", weights=weights)
        assert weight.grad.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    weight.grad = None
    gs.backward(weight.reshape(2, 3).pow(2), [weight], "sum", weights=2.0)
    assert weight.grad.tolist() == [4.0] * 6
    for wrong in (factors.flatten(), [1.0] * 6, factors.T):
        with pytest.raises(
            gs.InputError, match=r"weights: expected numbers of the losses' shape \[2, 3\]"
        ):
            gs.backward(weight.reshape(2, 3).pow(2), [weight], "sum", weights=wrong)
    with pytest.raises(gs.InputError, match="at least one is needed"):
        gs.backward(torch.ones(2, 0, requires_grad=True))

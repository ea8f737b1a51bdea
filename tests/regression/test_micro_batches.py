"""What changes between two micro-batches."""

import pytest
from torch import nn

import gradsurgery as gs
from tests.support.saved import Two, data


@pytest.mark.parametrize("given", ["module", "groups"])
def test_a_layer_replaced_between_two_micro_batches_is_an_error(given):
    model = Two()
    surgery = gs.Surgery("mgda", model if given == "module" else {"all": model})
    surgery.accumulate(model(data(0)))
    old = model.a
    model.a = nn.Linear(8, 1).double()
    name = "a.weight" if given == "module" else "all/a.weight"
    with pytest.raises(
        gs.InputError, match=f"accumulate: parameter '{name}' is another tensor.*discard"
    ):
        surgery.accumulate(model(data(1)))
    with pytest.raises(
        gs.InputError, match=f"combine: parameter '{name}' is another tensor.*discard"
    ):
        surgery.combine()
    assert old.weight.grad is None
    assert model.a.weight.grad is None
    surgery.discard()
    surgery.accumulate(model(data(1)))
    surgery.combine()
    assert model.a.weight.grad is not None


def test_a_layer_frozen_between_micro_batches_and_combine_keeps_its_gradient():
    model = Two()
    surgery = gs.Surgery("mgda", model)
    surgery.accumulate(model(data(0)))
    model.a.requires_grad_(False)
    surgery.combine()
    assert model.a.weight.grad is not None

"""Mistakes at `Surgery.step` that were silent, or whose message did not say what to do."""

import pytest
import torch
from torch import nn

import gradsurgery as gs


class Two(nn.Module):
    """Two losses of one layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def losses(self):
        return list(self.layer(torch.ones(3)).pow(2))


def test_the_optimizer_of_another_model_is_an_error():
    model = Two()
    surgery = gs.Surgery("upgrad", model)
    optimizer = torch.optim.Adam(Two().parameters())
    with pytest.raises(gs.InputError, match="holds none of the 2 trainable parameters"):
        surgery.step(model.losses(), optimizer, guard="correct")
    assert all(p.grad is None for p in model.parameters())
    assert not optimizer.state


def test_a_group_that_the_optimizer_does_not_hold_is_said_and_not_counted():
    model, extra = Two(), nn.Parameter(torch.ones(2))
    surgery = gs.Surgery("upgrad", {"held": model, "other": [extra]})
    losses = [loss * extra[i] for i, loss in enumerate(model.losses())]
    record = surgery.step(losses, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "step not measured: the optimizer holds no parameter of it" in str(record)
    assert surgery.corrections["measured"] == 1


def test_unscaling_within_between_says_what_stands():
    model = Two()
    surgery, scaler = gs.Surgery("upgrad", model), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.Adam(model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(gs.InputError, match=r"between: .* leave it out. Nothing was stepped"):
        surgery.step(
            model.losses(), optimizer, scaler=scaler, between=lambda: scaler.unscale_(optimizer)
        )
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    optimizer.zero_grad()
    scaler.update()
    assert surgery.step(model.losses(), optimizer, scaler=scaler).change is not None


def test_names_and_settings_in_the_wrong_place_say_where_they_belong():
    model = Two()
    with pytest.raises(gs.UnknownNameError, match=r"guard belongs to surgery\.step"):
        gs.Surgery("upgrad", model, guard="correct")
    with pytest.raises(gs.InputError, match=r"get_submodule\('layer'\)"):
        gs.Surgery("upgrad", model, decide_on="layer")
    surgery = gs.Surgery("upgrad", model)
    with pytest.raises(gs.InputError, match="losses apart, not their sum"):
        surgery.backward(sum(model.losses()))

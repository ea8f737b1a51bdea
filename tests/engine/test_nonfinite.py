"""NaN and inf are errors that name their place."""

import math

import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads, same
from tests.support.shipped import LEAST, SHIPPED, plain, ready, step

STRATEGIES = [n for n in SHIPPED if n not in LEAST]  # the groups here have two objectives


class Poison(torch.autograd.Function):
    """The identity, whose gradient has one bad number."""

    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        out = gradient.clone()
        out.view(-1)[0] = ctx.value
        return out, None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_that_is_not_finite_names_objective_and_group(strategy, value):
    model = TwoEncoders()
    losses = model.losses()
    losses["audio"] = losses["audio"] * value
    with pytest.raises(gs.NonFiniteError, match=r"'audio'.*'audio\+fused'"):
        step(gs.Surgery(ready(strategy, "fused"), model), losses, model.losses)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_gradient_that_is_not_finite_names_objective_and_group(strategy, value, existing):
    model = TwoEncoders()
    surgery = gs.Surgery(ready(strategy, "fused"), model)
    if existing:
        step(surgery, model.losses(3), lambda: model.losses(4))
    before, state = grads(model), plain(surgery.state_dict())
    losses = model.losses()
    losses["visual"] = Poison.apply(losses["visual"], value)
    with pytest.raises(
        gs.NonFiniteError, match=r"'visual'.*'fused\+visual'|'fused\+visual'.*'visual'"
    ):
        step(surgery, losses, model.losses)
    assert same(before, grads(model))
    assert plain(surgery.state_dict()) == state


def test_a_bad_gradient_inside_one_head_only():
    model = TwoEncoders()
    model.losses()
    hidden = model.audio(torch.ones(2, 4, dtype=torch.float64))
    losses = {
        "a": hidden.sum(),
        "b": Poison.apply(model.audio_head(hidden.detach()), math.nan).sum(),
    }
    for strategy in ("sum", "mgda"):
        with pytest.raises(gs.NonFiniteError, match=r"objective 'b' in group 'b'"):
            gs.backward(losses, model, strategy, retain_graph=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ignore_lets_them_pass(strategy):
    model = TwoEncoders()
    losses = model.losses()
    losses["audio"] = losses["audio"] * math.inf
    record = step(
        gs.Surgery(ready(strategy, "fused"), model, nonfinite="ignore"), losses, model.losses
    )
    assert not torch.isfinite(model.audio[0].weight.grad).all()
    assert torch.isfinite(model.visual[0].weight.grad).all()
    assert set(record) == {"audio+fused", "fused+visual", "audio", "fused", "visual"}


def test_gradients_whose_squares_overflow_are_said_to():
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    with pytest.raises(gs.NonFiniteError, match=r"overflow.*objective 'big'"):
        gs.backward({"big": weight.sum() * 1e200, "small": weight.pow(2).sum()}, [weight], "mgda")


def test_a_direction_outside_the_parameters_dtype():
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    losses = {"a": weight.sum() * 20000.0, "b": weight[0] * 20000.0}
    with pytest.raises(gs.NonFiniteError, match="dtype"):
        gs.backward(losses, [weight], "mmpareto", gamma=5.0)
    assert weight.grad is None

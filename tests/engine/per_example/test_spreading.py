"""Examples that may come to act on others are found while their coefficient is still zero."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.engine.per_example.test_checked import CHECKED, ONE, B, Steps, mlp, squares
from tests.support.mixing import two
from tests.support.per_example import mixtures
from tests.support.per_example_models import Calling, D

EACH = " to check that examples are independent, as in each step: one may come to act on others"


def gated(mix):
    """A model whose gate lets in what a function makes of all examples."""
    torch.manual_seed(0)
    return two(lambda m, h: h + m.gate * mix(h), gate=nn.Parameter(torch.zeros(())))[0]


MIXED = {
    "mean": lambda h: h.mean(0),
    "reversed": lambda h: h.flip(0),
    "shifted": lambda h: h.roll(1, 0),
    "sum so far": lambda h: h.cumsum(0),
    "neighbour": lambda h: h.view(-1, 2, D).flip(1).reshape(-1, D),
    "other half": lambda h: torch.cat([h[len(h) // 2 :], h[: len(h) // 2]]),
    "attention": lambda h: (h @ h.T).softmax(1) @ h,
    "matrix": lambda h: torch.ones(len(h), len(h)) @ h,
}


@pytest.mark.sampled(keep=lambda name: name.endswith(("[mean-4]", "[reversed-4]")))
@pytest.mark.parametrize("examples", [2, 4, 16])
@pytest.mark.parametrize("kind", MIXED)
def test_a_gate_that_opens_by_degrees(kind, examples):
    model = gated(MIXED[kind])
    step, found, refused = Steps(model), [], ""
    for k in range(20):  # each is compared with a pass per objective
        nn.init.constant_(model.gate, 0.0 if k < 2 else 1e-7 * 3**k)
        try:
            found.append(step(squares(model, torch.randn(examples, D))))
        except gs.InputError as error:
            refused = str(error)
            break
    assert "first.weight" in refused
    assert len(found) > 2
    assert all(EACH in method for method in found[1:])


def test_attention_within_the_examples_of_one_row():
    """The weights between examples are zero, which only numbers tell."""
    torch.manual_seed(0)
    allowed = torch.block_diag(*[torch.ones(3, 3)] * B).bool()

    def call(m, x):
        h = m.inside(x.reshape(1, B * 3, D))
        h = h + nn.functional.scaled_dot_product_attention(h, h, h, allowed)
        return m.out(h).reshape(B, 3)

    model = Calling(call, inside=nn.Linear(D, D), out=nn.Linear(D, 1))
    step = Steps(model)
    assert all(EACH in step(squares(model, torch.randn(B, 3, D))) for _ in range(3))


def test_what_raises_at_nan_is_no_error():
    model, x = mlp(), torch.randn(B, D)

    def finite(gradient):
        if not torch.isfinite(gradient).all():
            raise ValueError("NaN")

    def losses_of():
        h = model[0](x)
        h.register_hook(finite)
        return model[2](torch.tanh(h)).square().sum(1)

    assert Steps(model)(losses_of) == CHECKED
    with torch.autograd.set_detect_anomaly(True):
        step = Steps(model)
        assert [step(squares(model, x)) for _ in range(2)] == [CHECKED, ONE]


def test_a_checked_graph_is_freed():
    model, x = mlp(), torch.randn(B, D)
    losses = squares(model, x)()
    named = mixtures(torch.randn(2, B))
    gs.backward(gs.PerExample(losses, named), model, "mgda")
    with pytest.raises(gs.InputError, match="graph was freed"):
        gs.backward(gs.PerExample(losses, named), model, "mgda")
    losses = squares(model, x)()
    for _ in range(2):
        gs.backward(gs.PerExample(losses, named), model, "mgda", retain_graph=True)


def test_a_layer_with_a_gradient_of_zero_opens_nothing():
    """What goes to it passes a factor of zero, as of a low-rank update at first."""
    model = two(lambda m, h: h + m.up(m.down(h)), down=nn.Linear(D, 2), up=nn.Linear(2, D))[0]
    nn.init.zeros_(model.up.weight)
    step = Steps(model)
    assert [step(squares(model, torch.randn(4, D))) for _ in range(2)] == [CHECKED, ONE]
    nn.init.normal_(model.up.weight)
    assert [step(squares(model, torch.randn(4, D))) for _ in range(2)] == [CHECKED, ONE]


def test_a_mixing_layer_with_a_gradient_of_zero():
    mix = Calling(lambda m, h: m.down(h) - m.down(h).mean(0), down=nn.Linear(D, 2))
    model = two(lambda m, h: h + m.up(m.mix(h)), mix=mix, up=nn.Linear(2, D))[0]
    nn.init.zeros_(model.up.weight)
    model.first.requires_grad_(False)
    step = Steps(model)
    step(squares(model, torch.randn(4, D)))
    nn.init.constant_(model.up.weight, 1e-6)
    with pytest.raises(gs.InputError, match="down.weight"):
        step(squares(model, torch.randn(4, D)))


def test_open_is_tried_again_with_the_next_check():
    model = mlp()
    surgery, named = gs.Surgery("mgda", model), mixtures(torch.randn(2, B))
    losses_of = squares(model, torch.randn(B, D))
    surgery.backward(gs.PerExample(losses_of(), named))
    plan = surgery._cache.examples.found[0][2]
    plan.open = True
    found = [surgery.backward(gs.PerExample(losses_of(), named)).method for _ in range(5)]
    assert [EACH in method for method in found] == [True] * 3 + [False] * 2
    assert found[-1] == ONE

"""Hooks on parameters, activations and layers."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.recommender import PLACES, Recommender

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_multi_grad_hook_on_parameters_is_an_error_that_says_what_to_use(strategy):
    model = Recommender(sparse=False)
    handle = torch.autograd.graph.register_multi_grad_hook(model.dense, lambda gradients: None)
    with pytest.raises(
        gs.InputError, match=r"register_multi_grad_hook.*register_post_accumulate_grad_hook"
    ):
        gs.backward(model.losses(), model, strategy)
    assert all(grad is None for grad in model.grads.values())
    handle.remove()
    gs.backward(model.losses(), model, strategy)


@pytest.mark.parametrize("mode", ["all", "any"])
def test_a_multi_grad_hook_on_activations_fires_in_every_pass(mode):
    model = Recommender(sparse=False)
    seen = []
    hidden = model.trunk(model.table(PLACES).mean(1))
    other = hidden.tanh()
    torch.autograd.graph.register_multi_grad_hook([hidden, other], seen.append, mode=mode)
    losses = dict(zip("ab", model.head(other).square().mean(0), strict=False))
    gs.backward(losses, model, "mgda")
    assert len(seen) == 2


def test_a_tensor_hook_on_a_parameter_acts_on_the_gradient_of_each_loss():
    model, plain = Recommender(sparse=False), Recommender(sparse=False)
    seen = []
    model.trunk.weight.register_hook(lambda g: seen.append(g.shape) or g / 2)
    gs.backward(model.losses(), model, "mgda", method="gradients")
    assert len(seen) == 3
    rows = [
        torch.autograd.grad(loss, list(plain.parameters()), retain_graph=True)
        for loss in plain.losses().values()
    ]
    halved = [
        torch.cat([(g / 2 if i == 1 else g).flatten() for i, g in enumerate(row)]) for row in rows
    ]
    torch.testing.assert_close(
        torch.cat([p.grad.flatten() for p in model.parameters()]), gs.get_strategy("mgda")(halved)
    )


def test_a_surgery_within_a_hook_of_another_stands():
    net, aux, x = nn.Linear(3, 3), nn.Linear(3, 2), torch.randn(4, 3)
    outer, inner = gs.Surgery("mgda", nn.ModuleList([net, aux])), gs.Surgery("mgda", aux)
    z, called = net(x), []

    def hook(gradient):
        if not called:
            called.append(1)
            with torch.enable_grad():
                first, second = aux(x).pow(2).mean(0)
                inner.backward({"p": first, "q": second})

    z.register_hook(hook)
    outer.backward({"u": z.mean(), "v": z.pow(2).mean()})
    assert aux.weight.grad is not None
    assert net.weight.grad is not None


def test_a_hook_across_joined_features_is_within_the_group():
    torch.manual_seed(0)
    x, first, second = torch.randn(8, 4), nn.Linear(4, 3), nn.Linear(4, 3)
    z = torch.cat([first(x), second(x)], 1)
    z.register_hook(lambda g: g - g.mean(1, keepdim=True))
    losses = {"a": z[:, :3].pow(2).mean(), "b": (z[:, 3:] - 1).pow(2).mean()}
    assert list(gs.Surgery("mgda", nn.ModuleList([first, second])).backward(losses)) == ["a+b"]


def hooked_layer(hook):
    torch.manual_seed(0)
    n = 200
    x, w, b = torch.randn(8, n), nn.Parameter(torch.randn(n, n) * 0.1), nn.Parameter(torch.zeros(n))

    def layer():
        turned = w.t()
        turned.register_hook(hook)
        return torch.addmm(b, x, turned)

    return w, b, layer


def test_a_batch_without_a_gradient_proves_no_tap():
    w, b, layer = hooked_layer(lambda g: g * 10)

    def losses(labelled):
        y = layer()
        return {
            "a": labelled * y[:, :100].pow(2).mean(),
            "c": (y[:, 100:] - 1).pow(2).mean() + y.mean(),
        }

    tapped, formed = gs.Surgery("upgrad", [w, b]), gs.Surgery("upgrad", [w, b], method="gradients")
    tapped.backward(losses(0.0))
    found = []
    for surgery in (tapped, formed):
        w.grad = b.grad = None
        surgery.backward(losses(1.0))
        found.append(w.grad.clone())
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_a_hook_that_clips_one_loss_alone_is_found():
    w, b, layer = hooked_layer(lambda g: g * min(1.0, 1.0 / float(g.norm())))

    def losses(swapped):
        y = layer()
        found = [
            ("a", 1e-3 * y[:, :100].pow(2).mean()),
            ("c", 100 * (y[:, 100:] - 1).pow(2).mean()),
        ]
        return dict(reversed(found) if swapped else found)

    w.grad = b.grad = None
    gs.Surgery("upgrad", [w, b], method="gradients").backward(losses(True))
    expected = w.grad.clone()
    w.grad = b.grad = None
    gs.Surgery("upgrad", [w, b]).backward(losses(True))
    assert torch.allclose(w.grad, expected, rtol=1e-4)
    w.grad = b.grad = None
    with pytest.raises(
        gs.InputError, match="method='gradients'"
    ):  # seen when the other loss's graph is gone
        gs.Surgery("upgrad", [w, b]).backward(losses(False))
    assert w.grad is None

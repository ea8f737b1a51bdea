"""A step in the loop: like torch's own backward in everything but the combination."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads, same

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", ["none", "existing"])
def test_sum_and_mean_are_torchs_own_bit_for_bit(dtype, start):
    for seed in range(5):
        for name, reduce in (
            ("sum", lambda x: sum(x)),
            ("mean", lambda x: sum(x) / len(x)),
            ("mean", lambda x: torch.stack(x).mean()),
        ):
            expected, found = TwoEncoders(seed, dtype=dtype), TwoEncoders(seed, dtype=dtype)
            if start == "existing":
                for model in (expected, found):
                    sum(model.losses(seed + 100).values()).backward()
            reduce(list(expected.losses(seed).values())).backward()
            record = gs.backward(found.losses(seed), found, name)
            assert same(grads(expected), grads(found))
            assert record["fused"].weights.tolist() == [1.0 if name == "sum" else 1 / 3]
            assert record["fused"].gram is None


def test_convolutions_sum_bit_for_bit():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3),
        nn.Flatten(),
        nn.Linear(8 * 16, 3),
    )
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=memory_format)
        x = torch.randn(4, 1, 8, 8).to(memory_format=memory_format)
        out = model(x)
        losses = [out[:, 0].mean(), out.pow(2).mean(), out.exp().mean()]
        model.zero_grad()
        sum(losses).backward(retain_graph=True)
        expected = grads(model)
        model.zero_grad()
        gs.backward(losses, model, retain_graph=True)
        assert same(expected, grads(model))
        assert all(p.grad.stride() == p.stride() for p in model.parameters())
        model.zero_grad()
        gs.backward(losses, model, "mgda")
        assert all(p.grad.stride() == p.stride() for p in model.parameters())


@pytest.mark.parametrize("strategy", ["sum", "scaled-sum", "mgda", "mmpareto"])
def test_accumulates_in_place(strategy):
    model = TwoEncoders()
    gs.backward(model.losses(1), model, strategy)
    first, held = grads(model), model.fusion.weight.grad
    gs.backward(model.losses(2), model, strategy)
    assert model.fusion.weight.grad is held
    both = grads(model)
    model.zero_grad()
    gs.backward(model.losses(2), model, strategy)
    second = grads(model)
    for name in first:
        if first[name] is not None:
            assert torch.equal(both[name], first[name] + second[name])


def test_scaled_sum_is_gamma_on_shared_parameters_only():
    model = TwoEncoders()
    gs.backward(model.losses(), model)
    plain = grads(model)
    model.zero_grad()
    record = gs.backward(model.losses(), model, "scaled-sum", gamma=2.0)
    for name, gradient in grads(model).items():
        if gradient is not None:
            assert torch.equal(
                gradient, plain[name] * (2.0 if name.startswith(("audio.", "visual.")) else 1.0)
            )
    assert record["audio+fused"].weights.tolist() == [2.0, 2.0]


class Counted(torch.autograd.Function):
    """Identity that counts how often its backward runs."""

    count = 0

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        Counted.count += 1
        return gradient


@pytest.mark.parametrize(
    ("strategy", "passes"),
    [
        ("sum", 1),
        ("mean", 1),
        ("random", 1),
        ("constant", 1),
        ("scaled-sum", 1),
        ("mgda", 3),
        ("pcgrad", 3),
        ("cagrad", 3),
        ("mmpareto", 3),
    ],
)
def test_each_graph_is_traversed_once(strategy, passes):
    trunk, heads = nn.Linear(3, 4), nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
    features = Counted.apply(trunk(torch.randn(5, 3)))
    losses = [head(features).pow(2).mean() for head in heads]
    Counted.count = 0
    gs.backward(losses, nn.ModuleList([trunk, heads]), strategy)
    assert Counted.count == passes


def test_hooks_fire_once_per_parameter_after_everything_is_written():
    model = TwoEncoders()
    fired = []

    def hook(parameter):
        fired.append(parameter)
        assert model.fusion.weight.grad is not None
        assert model.audio[0].weight.grad is not None

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(hook)
    for strategy in ("sum", "mgda"):
        fired.clear()
        model.zero_grad()
        gs.backward(model.losses(), model, strategy)
        assert sorted(map(id, fired)) == sorted(
            id(p) for p in model.parameters() if p.grad is not None
        )


def test_a_hook_that_raises_propagates_and_the_step_stands():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model)

    def hook(parameter):
        raise RuntimeError("from the hook")

    handle = model.fusion.weight.register_post_accumulate_grad_hook(hook)
    with pytest.raises(RuntimeError, match="from the hook"):
        surgery.backward(model.losses())
    assert model.visual_head.weight.grad is not None
    assert surgery.state_dict()["step"] == 1
    handle.remove()


class Given(torch.autograd.Function):
    """A loss whose gradient is a tensor somebody else holds."""

    @staticmethod
    def forward(ctx, x, gradient):
        ctx.gradient = gradient
        return x.detach().sum()

    @staticmethod
    def backward(ctx, out):
        return ctx.gradient, None


@pytest.mark.parametrize("strategy", ["sum", "scaled-sum", "mgda"])
def test_grad_never_aliases_what_others_hold(strategy):
    held = torch.tensor([1.0, 2.0])
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    gs.backward([Given.apply(p, held), (p + q).pow(2).sum() + (p + q).sum()], [p, q], strategy)
    p.grad.add_(100)
    q.grad.add_(10)
    assert held.tolist() == [1.0, 2.0]
    single = nn.Parameter(torch.zeros(2))
    gs.backward([Given.apply(single, held)], [single], strategy)
    single.grad.add_(1)
    assert held.tolist() == [1.0, 2.0]
    r, s = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    gs.backward([(r + s).exp().sum()], [r, s], strategy)
    r.grad.add_(1)
    assert s.grad.tolist() == [1.0, 1.0]


def test_a_parameter_as_a_loss_and_an_expanded_gradient():
    p = nn.Parameter(torch.tensor(2.0))
    q = nn.Parameter(torch.zeros(3))
    gs.backward({"itself": p, "square": p * p, "flat": q.sum()}, [p, q])
    assert p.grad == 5.0
    q.grad[0] = 7.0
    assert q.grad.tolist() == [7.0, 1.0, 1.0]


def test_retain_graph_and_inspect_keep_the_graph():
    model = TwoEncoders()
    losses = model.losses()
    looked = gs.inspect(losses, model)
    assert all(p.grad is None for p in model.parameters())
    record = gs.backward(losses, model, "mgda", retain_graph=True)
    assert looked["audio+fused"].gram == pytest.approx(record["audio+fused"].gram, rel=1e-12)
    assert looked["audio+fused"].weights is None
    assert looked.strategy is None
    gs.backward(losses, model)
    with pytest.raises(gs.InputError, match="freed by an earlier backward pass"):
        gs.backward(losses, model)


@pytest.mark.parametrize("method", ["gradients", "batched"])
def test_losses_of_before_an_optimizer_step_are_refused_with_what_to_do(method):
    weight = nn.Parameter(torch.ones(2))
    surgery = gs.Surgery("mgda", [weight], method=method)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    losses = {"a": weight.pow(2).sum(), "b": (weight - 2).pow(3).sum()}
    surgery.backward(losses, retain_graph=True)
    optimizer.step()
    before = weight.grad.clone()
    with pytest.raises(gs.InputError, match=r"before optimizer\.step\(\): compute them") as error:
        surgery.backward(losses)
    assert "modified by an inplace operation" in str(error.value.__cause__)
    assert torch.equal(weight.grad, before)


def test_low_precision_parameters():
    for dtype in (torch.bfloat16, torch.float16):
        model = TwoEncoders(dtype=dtype)
        exact = TwoEncoders(dtype=dtype).double()
        exact.load_state_dict(model.state_dict())
        gs.backward(model.losses(), model, "mgda")
        assert all(p.grad is None or p.grad.dtype == dtype for p in model.parameters())


def test_autocast_does_not_touch_the_gram():
    model = TwoEncoders(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses()
        inside = gs.inspect(losses, model)["audio+fused"].gram
    outside = gs.inspect(losses, model)["audio+fused"].gram
    assert (inside == outside).all()


def test_nothing_else_changes():
    model = TwoEncoders()
    before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()
    gs.backward(model.losses(), model, "pcgrad")
    TwoEncoders().losses()
    torch.random.set_rng_state(before)
    gs.Surgery("random", model).backward(model.losses())
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()

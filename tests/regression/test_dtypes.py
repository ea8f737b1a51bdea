"""Tensors of other layouts and several dtypes side by side, float8 among them."""

import re

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.recommender import total

# Parameters of other layouts.


LAYOUTS = {
    "sparse_csr": (lambda: torch.eye(3).to_sparse_csr(), lambda p: (p @ torch.ones(3, 1)).sum()),
    "sparse_coo": (
        lambda: torch.eye(3).to_sparse(),
        lambda p: torch.sparse.mm(p, torch.ones(3, 1)).sum(),
    ),
    "mkldnn": (lambda: torch.eye(3).to_mkldnn(), lambda p: p.to_dense().sum()),
    "nested": (
        lambda: torch.nested.nested_tensor(
            [torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged
        ),
        lambda p: (p * 2.0).values().sum(),
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
@pytest.mark.parametrize("form", LAYOUTS)
def test_parameters_of_other_layouts_are_named(form, strategy):
    if form == "mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no MKLDNN")
    value, loss = LAYOUTS[form]
    model = nn.Module()
    model.odd, model.scale = nn.Parameter(value()), nn.Parameter(torch.ones(2))

    def losses():
        return [loss(model.odd) * model.scale[0], loss(model.odd) * model.scale[1]]

    with pytest.raises(
        gs.InputError, match=rf"parameter 'odd' is .*{form}.*requires_grad_\(False\)"
    ):
        gs.backward(losses(), model, strategy)
    with pytest.raises(gs.InputError, match=rf"a parameter of shape \[.*\] is .*{form}"):
        gs.backward(losses(), [model.scale], strategy)
    assert model.scale.grad is None
    model.odd.requires_grad_(False)
    gs.backward(losses(), model, strategy)
    assert model.scale.grad is not None


# Several dtypes side by side.


def test_a_grad_of_another_dtype_is_added_to_or_refused_before_anything_is_written():
    def model_with(dtype):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        model[1].bias.grad = torch.ones(2)
        model[1].bias.grad.data = torch.ones(2, dtype=dtype)
        model[0].weight.grad = torch.zeros(4, 3)
        return model, dict(zip("ab", model(torch.ones(5, 3)).square().mean(0), strict=True))

    for dtype in (torch.int64, torch.bool, torch.float8_e4m3fn):
        for strategy in ("mgda", "sum"):
            model, losses = model_with(dtype)
            with pytest.raises(
                gs.InputError, match=rf"\.grad \({re.escape(str(dtype))}.*set it to None"
            ):
                gs.backward(losses, model, strategy)
            assert model[0].bias.grad is None
            assert not model[0].weight.grad.any()
    for dtype in (torch.float64, torch.bfloat16):
        (model, losses), (plain, others) = model_with(dtype), model_with(dtype)
        gs.backward(losses, model, "sum")
        total(others).backward()
        assert model[1].bias.grad.dtype == plain[1].bias.grad.dtype == dtype
        torch.testing.assert_close(model[1].bias.grad, plain[1].bias.grad)


@pytest.mark.parametrize("strategy", ["sum", "mgda", "graddrop", "db-mtl"])
def test_losses_and_parameters_of_several_dtypes(strategy):
    torch.manual_seed(0)
    values = [torch.randn(3) for _ in range(4)]
    dtypes = torch.bfloat16, torch.float16, torch.float32, torch.float64
    parameters = [nn.Parameter(v.to(dtype)) for v, dtype in zip(values, dtypes, strict=True)]
    exact = [nn.Parameter(p.detach().double()) for p in parameters]

    def losses(given, dtypes):
        wide = [p.double() for p in given]
        parts = (
            sum(p.square().sum() for p in wide),
            sum(p.tanh().sum() for p in wide) + 20,
            sum(wide).cos().sum() + 9,
        )
        return dict(
            zip(
                "abc",
                (part.to(dtype) for part, dtype in zip(parts, dtypes, strict=True)),
                strict=True,
            )
        )

    gs.Surgery(strategy, parameters).backward(
        losses(parameters, (torch.float64, torch.float32, torch.bfloat16))
    )
    gs.Surgery(strategy, exact).backward(losses(exact, [torch.float64] * 3))
    for p, q in zip(parameters, exact, strict=True):
        assert p.grad.dtype == p.dtype
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=0.05, atol=0.05)


EIGHT_BITS = [
    getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name)
]


@pytest.mark.parametrize("dtype", EIGHT_BITS, ids=str)
def test_a_float8_loss_is_named(dtype):
    weight = nn.Parameter(torch.ones(3))
    losses = {"fine": weight.sum(), "narrow": weight.square().sum().to(dtype)}
    with pytest.raises(gs.InputError, match=r"loss 'narrow'.*float8.*\.float\(\)"):
        gs.backward(losses, [weight], "mgda")
    assert weight.grad is None


@pytest.mark.parametrize("dtype", EIGHT_BITS, ids=str)
@pytest.mark.parametrize("strategy", ["mgda", "graddrop", "db-mtl", "aligned-mtl"])
def test_float8_parameters_are_seen_as_float32(strategy, dtype):
    narrow = nn.Parameter(torch.tensor([0.5, 1.0, -2.0]).to(dtype))
    exact = nn.Parameter(narrow.detach().float())

    def losses(weight):
        wide = weight.float()
        return {
            "a": wide.square().sum(),
            "b": (wide - 1).square().sum(),
            "c": wide.tanh().sum() + 3,
        }

    gs.Surgery(strategy, [narrow]).backward(losses(narrow))
    gs.Surgery(strategy, [exact]).backward(losses(exact))
    assert narrow.grad.dtype == dtype
    torch.testing.assert_close(narrow.grad.float(), exact.grad, rtol=0.3, atol=0.1)
    kept = narrow.grad.float()
    with pytest.raises(gs.InputError, match=r"float8.*set it to None"):
        gs.backward(losses(narrow), [narrow], strategy="mgda")
    assert torch.equal(narrow.grad.float(), kept)


def test_a_direction_beyond_the_range_of_float8_is_an_error():
    weight = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn))
    losses = [weight.float().sum() * 300, weight.float().sum() * 299]
    with pytest.raises(gs.NonFiniteError, match="not finite in the parameters' dtype"):
        gs.backward(losses, [weight], "sum", protect="0")
    assert weight.grad is None


def test_float8_gradients_that_torch_cannot_add_are_an_error_that_says_so():
    weight = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn))
    with pytest.raises(gs.InputError, match=r"float8.*wider dtype"):
        gs.backward([weight.float().sum(), weight.float().square().sum()], [weight], "sum")
    assert weight.grad is None

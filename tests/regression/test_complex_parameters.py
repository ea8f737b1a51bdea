"""Complex parameters count as pairs of reals."""

import io

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.recommender import each_with, total

INPUT = torch.complex(
    torch.linspace(-1, 1, 15, dtype=torch.float64), torch.linspace(2, -1, 15, dtype=torch.float64)
).view(5, 3)


class Waves(nn.Module):
    """Complex and real parameters, or all as pairs of reals."""

    def __init__(self, pairs=False, dtype=torch.complex128):
        super().__init__()
        torch.manual_seed(3)
        self.pairs, self.dtype = pairs, dtype
        for name, shape in (("weight", (3, 4)), ("bias", (4,)), ("head", (4,))):
            value = torch.randn(shape, dtype=dtype)
            self.register_parameter(
                name, nn.Parameter(torch.view_as_real(value) if pairs else value)
            )
        self.gain = nn.Parameter(torch.rand(4, dtype=dtype.to_real()))

    def losses(self, step=0):
        weight, bias, head = (
            torch.view_as_complex(p) if self.pairs else p
            for p in (self.weight, self.bias, self.head)
        )
        z = ((INPUT.to(self.dtype) + step / 3) @ weight + bias) * self.gain
        return {
            "a": z.abs().square().mean() + 0.1,
            "b": (z.conj().imag + 0.5).square().mean() + 0.1,
            "c": (z * head).real.sub(1).square().mean() + 0.1,
        }

    @property
    def real_grads(self):
        return [torch.view_as_real(p.grad) if p.is_complex() else p.grad for p in self.parameters()]

    @torch.no_grad()
    def move(self):
        for p in self.parameters():
            p -= 0.05 * p.grad
            p.grad = None


COMPLEX = ["mgda", "upgrad", "aligned-mtl", "pcgrad", "mmpareto", "graddrop", "moco", "db-mtl"]
COMPLEX += ["excess-mtl", "trimmed-mean", "uw", "mean"]


COMPLEX_MODES = [
    {},
    {"memory": "low"},
    {"method": "batched"},
    {"method": "taps"},
    {"protect": "a"},
    {"every": 2},
]


@each_with(COMPLEX, COMPLEX_MODES)
def test_complex_parameters_count_as_pairs_of_reals(strategy, settings):
    """Three steps are those of the same model whose parameters are real, with a last dimension of
    two.
    """
    models = Waves(), Waves(pairs=True)
    surgeries = [gs.Surgery(strategy, m, **settings) for m in models]
    for step in range(3):
        records = [s.backward(m.losses(step)) for s, m in zip(surgeries, models, strict=True)]
        for found, expected in zip(models[0].real_grads, models[1].real_grads, strict=True):
            torch.testing.assert_close(found, expected)
        for name, group in records[1].groups.items():
            if group.gram is not None:
                torch.testing.assert_close(records[0][name].gram, group.gram)
        for m in models:
            m.move()


def test_complex_parameters_that_are_not_given_get_the_plain_sum():
    for strategy in ("mgda", "sum"):
        model, plain = Waves(), Waves()
        gs.backward(model.losses(), [model.gain], strategy)
        total(plain.losses()).backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            if strategy == "sum" or p.is_complex():
                torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("strategy", ["moco", "db-mtl", "excess-mtl"])
def test_the_state_of_complex_parameters_is_saved_and_loaded(strategy):
    def run(save):
        model = Waves()
        surgery = gs.Surgery(strategy, model)
        for step in range(4):
            if step == 2 and save:
                buffer = io.BytesIO()
                torch.save(surgery.state_dict(), buffer)
                surgery = gs.Surgery(strategy, model)
                surgery.load_state_dict(
                    torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
                )
            surgery.backward(model.losses(step))
            model.move()
        return list(model.parameters())

    for found, expected in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("strategy", ["mgda", "db-mtl", "sum"])
def test_micro_batches_and_earlier_gradients_of_complex_parameters(strategy):
    models = Waves(), Waves(pairs=True)
    for m in models:
        surgery = gs.Surgery(strategy, m)
        for _ in range(2):
            for step in range(2):
                surgery.accumulate(m.losses(step))
            surgery.combine()
        surgery.backward(m.losses())
    for found, expected in zip(models[0].real_grads, models[1].real_grads, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_complex_gradient_is_written_as_an_optimizer_takes_it():
    """Without conjugate or negative bit, in the parameter's own layout."""
    torch.manual_seed(0)
    for strategy in ("sum", "mgda"):
        weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64).t())
        factor = torch.randn(4, 3, dtype=torch.complex64)
        losses = {
            "a": (weight.conj() * factor).sum().real,
            "b": (weight * factor).sum().imag,
            "c": weight.conj().sum().abs(),
        }
        expected = torch.stack(torch.autograd.grad(total(losses), [weight], retain_graph=True)).sum(
            0
        )
        gs.backward(losses, [weight], strategy)
        assert not weight.grad.is_conj()
        assert not weight.grad.is_neg()
        assert weight.grad.stride() == weight.stride()
        if strategy == "sum":
            torch.testing.assert_close(weight.grad, expected)
        torch.optim.Adam([weight]).step()
        assert torch.isfinite(torch.view_as_real(weight.detach())).all()


def test_a_gradient_is_written_in_the_layout_of_its_parameter():
    for size in (3, 300):  # small ones are combined together, large ones alone
        weight = nn.Parameter(torch.randn(size, size + 1))
        turned = weight.t().contiguous()
        gs.backward([turned.square().sum(), turned.sin().sum()], [weight], "mgda")
        assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize("part", ["real", "imag"])
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_complex_gradient_that_is_not_finite_is_an_error(strategy, part):
    model = Waves()

    def spoil(gradient):
        gradient = gradient.resolve_conj().clone()
        getattr(gradient, part)[0] = float("inf")
        return gradient

    model.bias.register_hook(spoil)
    with pytest.raises(gs.NonFiniteError):
        gs.backward(model.losses(), model, strategy)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("strategy", ["mgda", "uw"])
def test_complex_parameters_under_a_scaler(strategy):
    models = Waves(dtype=torch.complex64), Waves(dtype=torch.complex64)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    gs.Surgery(strategy, models[0]).backward(models[0].losses(), scaler=scaler)
    gs.Surgery(strategy, models[1]).backward(models[1].losses())
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p.grad / 2.0**8, q.grad)

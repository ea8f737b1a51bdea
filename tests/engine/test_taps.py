"""Taps: Gram matrices from the gradients at the layers' outputs equal those from gradients, and
only sound uses are tapped.
"""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import gradsurgery as gs
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.config import config_of
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import parse_losses
from gradsurgery.engine.taps import find_taps
from gradsurgery.engine.tracing import trace_graph
from tests.support.models import TwoEncoders, both
from tests.support.shipped import SHIPPED, ready, step


class Net(nn.Module):
    """Three layers and three heads; `variant` says what is done with the middle one."""

    def __init__(self, variant="plain", dtype=torch.float32, width=12):
        super().__init__()
        torch.manual_seed(0)
        self.variant = variant
        self.first, self.middle, self.last = (
            nn.Linear(5, width),
            nn.Linear(width, width, bias=variant != "no bias"),
            nn.Linear(width, width),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in "abc"})
        if variant == "tied":
            self.last.weight = self.middle.weight
        self.to(dtype)

    def body(self, h):
        variant = self.variant
        if variant == "functional":
            return F.linear(h, self.middle.weight, self.middle.bias)
        if variant == "functional and module":
            return self.middle(h) + F.linear(h.tanh(), self.middle.weight)
        if variant == "matmul":
            return h @ self.middle.weight.T + self.middle.bias
        if variant == "transposed":
            return h @ self.middle.weight + self.middle.bias
        if variant == "addmm, beta":
            return torch.addmm(self.middle.bias, h, self.middle.weight.t(), beta=0.5, alpha=2.0)
        if variant == "twice":
            return self.middle(self.middle(h).tanh())
        if variant == "sequence":
            return self.middle(torch.stack([h, h.tanh(), 2 * h], 1)).mean(1)
        if variant == "checkpoint":
            return checkpoint(self.middle, h, use_reentrant=False)
        return self.middle(h)

    def losses(self, rows=7):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(rows, 5, generator=generator, dtype=torch.float64).to(
            self.first.weight.dtype
        )
        h = self.last(
            self.body(self.first(x).tanh()).relu()
            if self.variant != "linear"
            else self.body(self.first(x))
        )
        found = {
            name: (head(h.tanh()).squeeze(-1) - i).pow(2).mean()
            for i, (name, head) in enumerate(self.heads.items())
        }
        if self.variant == "penalty":
            found["c"] = found["c"] + self.middle.weight.pow(2).sum()
        if self.variant == "penalty as a loss":
            found["d"] = self.middle.weight.pow(2).sum()
        if self.variant == "one loss leaves it out":
            found["c"] = self.heads["c"](self.first(x)).pow(2).mean()
        return found


# variant -> whether the middle layer may be tapped
VARIANTS = {
    "plain": True, "no bias": True, "linear": True, "functional": True, "matmul": False,
    "sequence": True, "one loss leaves it out": True,
    "tied": False, "functional and module": False, "transposed": False, "addmm, beta": False,
    "twice": False, "penalty": False,
    "penalty as a loss": False,
}  # fmt: skip


def taps(model, losses):
    parsed = parse_losses(losses)
    config, cache = config_of("mgda", model, method="taps"), TraceCache()
    trace, _, graph = trace_graph(config, parsed, History(), None, cache)
    return set(find_taps(graph, parsed, trace, config, cache))


@pytest.mark.parametrize(("variant", "tapped"), VARIANTS.items())
def test_what_is_tapped(variant, tapped):
    model = Net(variant)
    found = taps(model, model.losses())
    assert ("middle.weight" in found) == tapped
    assert not any(
        "heads" in name or "bias" in name for name in found
    )  # one objective each, and vectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "strategy", ["mgda", "sum", "mmpareto(rescale='tensor')", "cagrad", "imtl-g", "pcgrad"]
)
@pytest.mark.parametrize("variant", [*VARIANTS, "checkpoint"])
def test_taps_equal_gradients(variant, strategy, dtype):
    models = Net(variant, dtype), Net(variant, dtype)
    records = [
        gs.backward(m.losses(), m, strategy, method=method)
        for m, method in zip(models, ("taps", "gradients"), strict=True)
    ]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for first, second in both(*models):
        assert float((first - second).norm()) <= tolerance * float(second.norm()) + 1e-12
    for name, group in records[1].groups.items():
        if group.gram is not None:
            norms = group.norms
            assert np.abs(records[0][name].gram - group.gram).max() <= tolerance * norms.max() ** 2


@pytest.mark.parametrize("name", SHIPPED)
def test_every_strategy_with_taps(name):
    models = Net(dtype=torch.float64), Net(dtype=torch.float64)
    for model, method in zip(models, ("taps", "gradients"), strict=True):
        surgery = gs.Surgery(ready(name, "a"), model, method=method)
        for _ in range(3):
            model.zero_grad()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="scores")
                step(surgery, model.losses(), model.losses)
    for first, second in both(*models):
        assert torch.allclose(first, second, rtol=1e-7, atol=1e-10)


def test_hooks():
    """A hook on the weight keeps it from being tapped; hooks of modules and of outputs are in the
    gradients at the outputs.
    """
    for place in ("weight", "output", "module"):
        models = Net(dtype=torch.float64), Net(dtype=torch.float64)
        for model, method in zip(models, ("taps", "gradients"), strict=True):
            if place == "weight":
                model.middle.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
            elif place == "output":
                model.middle.register_forward_hook(
                    lambda module, given, out: (
                        out.register_hook(lambda g: g.clamp(-0.01, 0.01)),
                        out,
                    )[1]
                )
            else:
                model.middle.register_full_backward_pre_hook(
                    lambda module, grad: (grad[0].clamp(-0.01, 0.01),)
                )
            losses = model.losses()
            assert ("middle.weight" in taps(model, losses)) == (place != "weight")
            gs.backward(losses, model, "mgda", method=method)
        assert all(torch.allclose(a, b, rtol=1e-9) for a, b in both(*models)), place


def test_modes_with_taps():
    """Features, a scaler, user weights, protection, replays, existing gradients, an objective that
    comes and goes.
    """
    models = Net(dtype=torch.float64), Net(dtype=torch.float64)
    for model, method in zip(models, ("taps", "gradients"), strict=True):
        surgery = gs.Surgery("upgrad", model, method=method, protect="b", every=2)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for names in ("abc", "abc", "ab", "ab", "abc"):
            losses = model.losses()
            surgery.backward(
                {n: losses[n] for n in names},
                scaler=scaler,
                weights=dict(zip(names, (1.0, 3.0, 0.0), strict=False)),
            )
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-12) for a, b in both(*models))
    models = Net(dtype=torch.float64), Net(dtype=torch.float64)
    for model, method in zip(models, ("taps", "gradients"), strict=True):
        z = model.last(model.middle(model.first(torch.ones(3, 5, dtype=torch.float64))))
        shared = model.heads["a"](z).exp()
        gs.backward(
            {"a": shared.mean(), "b": -shared.sum() + model.heads["b"](z).pow(2).mean()},
            model,
            "mgda",
            method=method,
            features=z,
        )
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in both(*models))


def test_taps_of_a_multimodal_model():
    models = TwoEncoders(), TwoEncoders()
    for model, method in zip(models, ("taps", "gradients"), strict=True):
        record = gs.backward(model.losses(), model, "mmpareto", method=method)
        assert {"audio+fused", "fused+visual"} <= set(record)
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in both(*models))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_seen_at_the_outputs(value):
    model = Net()
    losses = model.losses()
    losses["b"] = losses["b"] * value
    with pytest.raises(gs.NonFiniteError, match="'b'"):
        gs.backward(losses, model, "mgda", method="taps")
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e12, 1e18])
def test_any_scale_and_gradients_far_shorter_than_their_factors(scale):
    """Inputs that are nearly constant and output gradients that sum to zero: in float32 the
    products lose everything, so float64 steps in.
    """
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 48))
    x = torch.ones(32, 48) + 1e-3 * torch.randn(32, 48)
    targets = [t - t.mean(0) for t in torch.randn(2, 32, 64)]
    found = []
    for method in ("taps", "gradients"):
        weight.grad = None
        out = F.linear(x, weight)
        record = gs.backward(
            {n: scale * (out * t).sum() for n, t in zip("ab", targets, strict=True)},
            [weight],
            "mgda",
            method=method,
        )
        found.append((record["a+b"].weights, record["a+b"].gram, weight.grad))
    exact = torch.stack([(t.double().T @ x.double()).flatten() for t in targets]) * scale
    gram = (exact @ exact.T).numpy()
    assert (
        np.abs(found[0][1] - gram).max() <= 1e-4 * gram.max()
    )  # the rounding of the output gradients themselves
    assert np.allclose(found[0][0], found[1][0], atol=1e-4)


def test_auto_taps_where_it_is_cheaper():
    wide = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    for rows, taken in ((8, True), (4096, False)):
        out = wide(torch.randn(rows, 256))
        parsed = parse_losses({"a": out.pow(2).mean(), "b": -out.mean()})
        found = {}
        for method in ("auto", "gradients", "taps"):
            config, cache = config_of("mgda", wide, method=method), TraceCache()
            trace, _, graph = trace_graph(config, parsed, History(), None, cache)
            found[method] = set(find_taps(graph, parsed, trace, config, cache))
        assert (found["auto"] != set()) == taken
        assert found["gradients"] == set()
        assert found["taps"] == {"0.weight", "2.weight"}
    with pytest.raises(gs.InputError, match="method"):
        gs.Surgery("mgda", wide, method="tap")


def test_under_autocast_and_in_bfloat16():
    for dtype, inside in ((torch.bfloat16, False), (torch.float32, True)):
        models = Net(dtype=dtype), Net(dtype=dtype)
        for model, method in zip(models, ("taps", "gradients"), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                losses = {n: loss.float() for n, loss in model.losses().items()}
            gs.backward(losses, model, "mgda", method=method)
        for first, second in both(*models):
            assert float((first - second).float().norm()) <= 2e-2 * float(second.float().norm())

"""Compiled regions: the groups of the plain model, and regions compiled for one pass."""

import warnings

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders
from tests.support.shared_trunk import F64, SharedTrunk


@pytest.mark.parametrize("given", ["module", "none", "explicit"])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw", "scaled-sum", "dgl(joint='fused')"])
def test_groups_of_a_compiled_multimodal_model(strategy, given):
    """One region for model and losses: every loss gives every parameter a gradient, and still each
    encoder is a group of its own two losses.
    """
    models = TwoEncoders(), TwoEncoders()
    x, y = torch.randn(8, 4, dtype=F64), torch.randn(8, 5, dtype=F64)

    def losses(model):
        a, v = model.frozen(model.audio(x)), model.visual(y)
        return (
            model.fusion(torch.cat([a, v], 1)).exp().mean(),
            model.audio_head(a).pow(2).mean(),
            model.visual_head(v).pow(2).mean(),
        )

    def parts(model):
        if given == "explicit":
            return {
                "A": model.audio,
                "V": model.visual,
                "H": nn.ModuleList([model.fusion, model.audio_head, model.visual_head]),
            }
        return model if given == "module" else None

    surgeries = [gs.Surgery(strategy, parts(model)) for model in models]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = torch.compile(lambda: losses(models[0]), backend="aot_eager", fullgraph=True)
        for _ in range(2):
            for model, made, surgery in zip(
                models, (call, lambda: losses(models[1])), surgeries, strict=True
            ):
                model.zero_grad()
                record = surgery.backward(
                    dict(zip(("fused", "audio", "visual"), made(), strict=True))
                )
                if model is models[0]:
                    first = record
            for (name, a), b in zip(
                models[0].named_parameters(), models[1].parameters(), strict=True
            ):
                assert (a.grad is None and b.grad is None) or torch.allclose(
                    a.grad, b.grad, rtol=1e-9, atol=1e-12
                ), name
            if surgery.strategy.needs_gradients:
                assert set(first) == set(record)


def test_a_gradient_that_is_zero_at_first_joins_the_group_when_it_comes():
    """LoRA's B starts at zero: behind a compiled region A's gradient is then zero from every loss,
    and no loss is said to reach it.
    """
    torch.manual_seed(0)
    low, high = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(3, 2))
    x = torch.randn(6, 4)

    def losses():
        out = x @ low.T @ high.T
        return {"a": (out - 1).pow(2).mean(), "b": (out[:, 1:] + 2).pow(2).mean()}

    call = torch.compile(losses, backend="aot_eager", fullgraph=True)
    surgery = gs.Surgery("mgda", [low, high])
    optimizer = torch.optim.SGD([low, high], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = surgery.backward(call())
        assert low.grad is not None
        assert (float(low.grad.abs().max()) == 0) == (step == 0)
        assert record["a+b"].parameters == (1 if step == 0 else 2)
        optimizer.step()


def test_a_region_compiled_for_one_pass_only_says_what_to_do():
    config = pytest.importorskip("torch._functorch.config")
    assert not config.donated_buffer  # set when the package was imported
    model, x = SharedTrunk(), torch.randn(7, 4, dtype=F64)

    def losses_of(x):
        z = model.trunk(x).tanh()
        return model.heads["a"](z).exp().mean(), model.heads["b"](z).pow(2).mean()

    call = torch.compile(losses_of, backend="aot_eager")
    config.donated_buffer = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = dict(zip("ab", call(x), strict=True))
            for allowed in (True, False):  # what counts is how it was compiled
                config.donated_buffer = allowed
                with pytest.raises(
                    gs.InputError, match=r"allows one backward pass only.*donated_buffer = False"
                ):
                    gs.backward(losses, model, "mgda")
                assert all(p.grad is None for p in model.parameters())
            gs.backward(losses, model, "sum")  # one pass
            assert model.trunk[0].weight.grad is not None
    finally:
        config.donated_buffer = False

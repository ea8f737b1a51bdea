"""Taps beside checkpoints and offloaded tensors."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import gradsurgery as gs
from tests.support.tapped import gradients, tapped


class Recomputed(nn.Module):
    """Wide layers in one checkpointed region, or none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(160, 160) for _ in range(4)])
        self.heads = nn.ModuleDict({name: nn.Linear(160, 1) for name in "ab"})
        self.norm = nn.BatchNorm1d(160)
        self.calls = 0

    def region(self, h):
        self.calls += 1
        for layer in self.layers:
            h = layer(h).tanh()
        return self.norm(h)

    def losses(self, **options):
        x = torch.randn(8, 160, generator=torch.Generator().manual_seed(3))
        z = checkpoint(self.region, x, use_reentrant=False, **options)
        return {
            name: (head(z) - i).pow(2).mean() for i, (name, head) in enumerate(self.heads.items())
        }


@pytest.mark.parametrize(
    "settings", [{"method": "gradients"}, {"method": "auto"}, {"memory": "low"}]
)
def test_a_checkpointed_region_is_recomputed_once_per_pass(settings):
    model = Recomputed()
    expected = Recomputed()
    gs.backward(expected.losses(), expected, "mgda", method="gradients")
    losses = model.losses()
    model.calls = 0
    gs.backward(losses, model, "mgda", **settings)
    if "memory" not in settings:  # there a portion takes passes of its own
        assert model.calls == 2
    for name, gradient in gradients(expected).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6)


def test_what_was_offloaded_is_read_by_the_passes_only():
    found = []
    for method in ("gradients", "auto", "taps"):
        model, reads = Recomputed(), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: t.clone(), lambda t, reads=reads: reads.append(1) or t
        ):
            z = model.region(torch.ones(8, 160) * torch.arange(8.0)[:, None])
            losses = {name: head(z).pow(2).mean() for name, head in model.heads.items()}
        gs.backward(losses, model, "mgda", method=method)
        found.append((len(reads), gradients(model)))
    assert found[0][0] == found[1][0]
    for other in found[1:]:
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(other[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_wide_layers_are_tapped_where_nothing_is_recomputed():
    """Otherwise the tests above would hold for a library that never taps."""
    model = Recomputed()
    z = model.region(torch.randn(8, 160))
    losses = {name: head(z).pow(2).mean() for name, head in model.heads.items()}
    assert tapped(model, losses, "auto") == {f"layers.{i}.weight" for i in range(4)}
    assert tapped(model, model.losses(), "auto") == set()
    assert tapped(model, model.losses(), "taps") == {f"layers.{i}.weight" for i in range(4)}


def selective():
    return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])


def test_a_selective_checkpoint_says_what_works():
    expected = Recomputed()
    gs.backward(expected.losses(), expected, "mgda", method="gradients")
    for options in ({"context_fn": selective}, {"debug": True}):
        for method in ("auto", "gradients", "taps"):
            model = Recomputed()
            with pytest.raises(
                gs.InputError, match="one backward pass only: give method='batched'"
            ):
                gs.backward(model.losses(**options), model, "mgda", method=method)
            assert not gradients(model)
        model = Recomputed()
        gs.backward(model.losses(**options), model, "mgda", method="batched")
        for name, gradient in gradients(expected).items():
            torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6)

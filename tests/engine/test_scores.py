"""Scores per modality, and what follows from them."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads

pytestmark = pytest.mark.quick


def test_ogm_ge_slows_the_dominant_encoder_only():
    model = TwoEncoders()
    groups = {"audio": model.audio, "visual": model.visual}
    plain_gradients = {}
    model.losses()["fused"].backward()
    plain_gradients.update(grads(model))
    model.zero_grad()
    surgery = gs.Surgery("ogm-ge", groups, min_objectives=1, noise=False, alpha=0.3)
    record = surgery.backward(
        {"fused": model.losses()["fused"]}, scores={"audio": 3.0, "visual": 1.5}
    )
    assert record["audio"].weights == pytest.approx([1 - np.tanh(0.3 * 2.0)])
    assert record["visual"].weights.tolist() == [1.0]
    found = grads(model)
    for name, gradient in plain_gradients.items():
        if gradient is not None:
            factor = 1 - np.tanh(0.6) if name.startswith("audio.") else 1.0
            assert torch.allclose(found[name], factor * gradient)


def test_ogm_ge_adds_noise_of_each_tensors_own_size():
    model = TwoEncoders(width=40)
    draws = []
    for seed in range(60):
        model.zero_grad()
        surgery = gs.Surgery(
            "ogm-ge", {"audio": model.audio}, min_objectives=1, others="ignore", seed=seed
        )
        surgery.backward({"fused": model.losses()["fused"]}, scores={"audio": 3.0, "visual": 1.5})
        draws.append([p.grad.clone() for p in model.audio.parameters()])
    model.zero_grad()
    gs.Surgery(
        "ogm-ge", {"audio": model.audio}, min_objectives=1, others="ignore", noise=False
    ).backward({"fused": model.losses()["fused"]}, scores={"audio": 3.0, "visual": 1.5})
    for i, parameter in enumerate(model.audio.parameters()):
        stacked = torch.stack([draw[i] for draw in draws])
        assert (stacked - parameter.grad).std() == pytest.approx(
            float(parameter.grad.std()), rel=0.1
        )
        assert (stacked.mean(0) - parameter.grad).abs().max() < 5 * parameter.grad.std() / np.sqrt(
            60
        )


def test_agm_compares_with_its_running_mean():
    model = TwoEncoders()
    surgery = gs.Surgery(
        "agm", {"audio": model.audio, "visual": model.visual}, min_objectives=1, alpha=0.5
    )
    seen = []
    for audio, visual in ((1.0, 1.2), (0.8, 1.3), (0.5, 1.1)):
        record = surgery.backward(
            {"fused": model.losses()["fused"]}, scores={"audio": audio, "visual": visual}
        )
        seen.append(np.exp(visual - audio))
        assert record["audio"].weights == pytest.approx([np.exp(0.5 * (np.mean(seen) - seen[-1]))])
    assert record["visual"].weights[0] > 1  # the modality that lags behind is sped up


def test_dgl_separates_encoders_from_fusion():
    model = TwoEncoders()
    losses = model.losses()
    expected = torch.autograd.grad(losses["audio"], model.audio[0].weight, retain_graph=True)[0]
    fusion = torch.autograd.grad(losses["fused"], model.fusion.weight, retain_graph=True)[0]
    gs.Surgery("dgl", model, joint="fused").backward(losses)
    assert torch.allclose(model.audio[0].weight.grad, expected)
    assert torch.allclose(model.fusion.weight.grad, fusion)


@pytest.mark.parametrize("name", ["ogm-ge", "agm"])
def test_scores_that_cannot_be_used(name):
    model = TwoEncoders()
    surgery = gs.Surgery(
        name, {"audio": model.audio}, min_objectives=1, modality={"audio": "sound"}
    )
    for scores, message in (
        (None, "needs a score per modality"),
        ({"sound": 1.0}, "two or more"),
        ({"sund": 1.0, "visual": 2.0}, "unknown modality 'sound'. Did you mean 'sund'"),
    ):
        with pytest.raises(gs.InputError, match=message):
            surgery.backward(model.losses(), scores=scores)
    assert all(p.grad is None for p in model.parameters())
    surgery.backward(model.losses(), scores={"sound": 1.0, "visual": 2.0})
    gs.Surgery("mgda", model).backward(model.losses(), scores={"audio": 1.0})  # others do not mind

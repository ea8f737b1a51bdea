"""Strategies that act on losses: their weights are the gradient of what they say they descend."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders

pytestmark = pytest.mark.quick

ONE_TO_THREE = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
SCALARS = {
    "gls": ({}, lambda x: x.log().mean().exp()),
    "stch(window=0, mu=0.3)": ({}, lambda x: 0.3 * torch.logsumexp(x / len(x) / 0.3, 0)),
    "stch(window=0, preference=[0.5, 2.0, 1.0], ideal=0.1)": (
        {}, lambda x: torch.logsumexp(torch.tensor([0.5, 2.0, 1.0]) * (x - 0.1), 0),
    ),
    "cosmos": ({}, lambda x: x.mean() - 2 * torch.cosine_similarity(x, torch.ones_like(x), dim=0)),
    "cosmos(preference=[1.0, 2.0, 3.0], lam=0.5)": (
        {}, lambda x: x @ ONE_TO_THREE - 0.5 * torch.cosine_similarity(x, ONE_TO_THREE, dim=0),
    ),
    "pbi": ({}, lambda x: x.sum() / 3**0.5 + 5 * (x - x.mean()).norm()),
    "uw": ({}, lambda x: 0.5 * x.sum()),
    "imtl-l": ({}, lambda x: x.sum()),
    "stch": ({}, lambda x: x.log().sum()),
    "famo": ({}, lambda x: (1 / (1 / x.detach()).sum()) * (x + 1e-8).log().sum()),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_weights_are_the_gradient_of_the_scalarisation(name):
    _, scalar = SCALARS[name]
    rng = np.random.default_rng(13)
    for _ in range(20):
        losses = torch.tensor(rng.uniform(0.2, 3, 3), requires_grad=True)
        expected = torch.autograd.grad(scalar(losses), losses)[0].numpy()
        chosen = gs.get_strategy(name)
        extra = {"state": gs.State()} if "state" in chosen.inputs else {}
        assert chosen.weights(np.eye(3), losses=losses.tolist(), **extra) == pytest.approx(
            expected, rel=1e-6, abs=1e-9
        )


def test_learned_scales_follow_their_losses():
    """uw and imtl-l against the same quantities learned by torch."""
    for name, scalar in (
        ("uw", lambda s, x: (0.5 * ((-s).exp() * x + s)).sum()),
        ("imtl-l", lambda s, x: (s.exp() * x - s).sum()),
    ):
        for optimizer, made in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
            chosen, state = gs.get_strategy(name, lr=0.05, optimizer=optimizer), gs.State()
            logs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
            own = made([logs], lr=0.05)
            for k in range(10):
                x = torch.tensor(np.random.default_rng(k).uniform(0.5, 3, 3), requires_grad=True)
                loss = scalar(logs, x)
                own.zero_grad()
                loss.backward()
                assert chosen.weights(np.eye(3), losses=x.tolist(), state=state) == pytest.approx(
                    x.grad.numpy(), rel=1e-9
                )
                own.step()


def test_dwa_and_stch_windows():
    rng = np.random.default_rng(14)
    chosen, state = gs.get_strategy("dwa", window=5, temperature=1.5), gs.State()
    seen = rng.uniform(0.5, 2, (25, 3))
    for k, losses in enumerate(seen):
        weights = chosen.weights(np.eye(3), losses=losses, state=state)
        block = k // 5
        rate = (
            np.ones(3)
            if block < 2
            else seen[5 * block - 5 : 5 * block].mean(0)
            / seen[5 * block - 10 : 5 * block - 5].mean(0)
        )
        assert weights == pytest.approx(3 * np.exp(rate / 1.5) / np.exp(rate / 1.5).sum())
    chosen, state = gs.get_strategy("stch", window=4, mu=0.7), gs.State()
    for k, losses in enumerate(seen):
        weights = chosen.weights(np.eye(3), losses=losses, state=state)
        if k < 4:
            assert weights == pytest.approx(1 / losses)
        else:
            powers = (losses / seen[:4].mean(0)) ** (1 / 0.7)
            assert weights == pytest.approx(3 * powers / powers.sum() / losses)


@pytest.mark.parametrize(
    "name",
    [
        "gls",
        "mgda(normalize='loss')",
        "mgda(normalize='loss+')",
        "stch",
        "dwa",
        "db-mtl",
        "moco",
        "famo",
        "gradnorm",
    ],
)
def test_losses_that_have_to_be_positive(name):
    model = TwoEncoders()
    losses = model.losses()
    losses["audio"] = losses["audio"] - 100.0
    with pytest.raises(gs.InputError, match="'audio' is -9"):
        gs.Surgery(name, model).backward(losses)
    assert all(p.grad is None for p in model.parameters())

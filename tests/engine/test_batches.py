"""Losses of several independent batches."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.models import Tree, TwoEncoders

pytestmark = pytest.mark.quick


@pytest.mark.usefixtures("temporary")
def test_cross_grams_are_those_between_the_batches():
    seen = {}

    @gs.strategy("test-cross", paper="a test", scale="own")
    def look(cross, objectives, group):
        seen[group] = (objectives, cross)
        return (
            np.arange(1.0, 7.0).reshape(3, 2) if cross.shape[-1] == 2 else np.ones(cross.shape[1:3])
        )

    model = TwoEncoders()
    batches = [model.losses(seed) for seed in range(3)]
    batches[1] = dict(reversed(batches[1].items()))  # the order within a batch does not matter
    expected = [
        [
            torch.cat(
                [
                    g.reshape(-1)
                    for g in torch.autograd.grad(
                        batch[o], model.audio.parameters(), retain_graph=True
                    )
                ]
            )
            for o in ("fused", "audio")
        ]
        for batch in batches
    ]
    heads = [
        torch.autograd.grad(batch["audio"], model.audio_head.weight, retain_graph=True)[0]
        for batch in batches
    ]
    record = gs.backward(batches, model, "test-cross")
    objectives, cross = seen["audio+fused"]
    assert objectives == ("fused", "audio")
    for a in range(3):
        for b in range(3):
            assert np.allclose(
                cross[a, b], [[float(x @ y) for y in expected[b]] for x in expected[a]]
            )
    found = torch.cat([p.grad.reshape(-1) for p in model.audio.parameters()])
    assert torch.allclose(
        found,
        sum(
            w * g
            for w, g in zip(range(1, 7), [g for batch in expected for g in batch], strict=True)
        ),
    )
    assert torch.allclose(
        model.audio_head.weight.grad, sum(heads) / 3
    )  # one objective: the mean over the batches
    mean = [sum(batch[i] for batch in expected) / 3 for i in range(2)]
    assert np.allclose(record["audio+fused"].gram, [[float(x @ y) for y in mean] for x in mean])
    assert record.losses["fused"] == pytest.approx(
        np.mean([float(batch["fused"].detach()) for batch in batches])
    )


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_the_definitions_of_modo_and_sdmgrad(name):
    model = Tree()
    surgery = gs.Surgery(name, {"root": model.root}, others="ignore")
    n, weights = 4, np.full(4, 0.25)
    for k in range(3):
        model.zero_grad()
        batches = [model.losses(3 * k + i) for i in range(3)]
        rows = [
            np.stack(
                [
                    torch.cat(
                        [
                            g.reshape(-1)
                            for g in torch.autograd.grad(
                                loss, model.root.parameters(), retain_graph=True
                            )
                        ]
                    ).numpy()
                    for loss in b.values()
                ]
            )
            for b in batches
        ]
        record = surgery.backward(batches)
        between = rows[0] @ rows[1].T
        if name == "modo":
            weights = gs.solvers.project_simplex(
                weights - 1e-3 * (between @ weights + 0.1 * weights)
            )
            expected = weights
        else:
            between = between / np.mean(
                np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
            )
            velocity = np.zeros(n)
            for _ in range(20):
                velocity = 0.5 * velocity + between @ (weights + 0.3 / n)
                weights = gs.solvers.project_simplex(weights - 10 * velocity)
            expected = (weights + 0.3 / n) / 1.3
        assert record["root"].weights[:2].tolist() == [[0.0] * n] * 2
        assert record["root"].weights[2] == pytest.approx(expected, abs=1e-9)
        found = torch.cat([p.grad.reshape(-1) for p in model.root.parameters()]).numpy()
        assert found == pytest.approx(rows[2].T @ expected, abs=1e-9)


def test_the_form_of_the_losses_has_to_fit():
    model = TwoEncoders()
    with pytest.raises(gs.StrategyError, match=r"takes losses of independent batches.*\[losses_1"):
        gs.Surgery("modo", model).backward(model.losses())
    with pytest.raises(gs.StrategyError, match="one batch, a dict; got a list of 2"):
        gs.backward([model.losses(), model.losses(1)], model, "mgda")
    with pytest.raises(gs.InputError, match="three independent batches"):
        gs.Surgery("modo", model).backward([model.losses(), model.losses(1)])
    with pytest.raises(gs.InputError, match="batch 0 has fused, audio, visual, batch 1 fused"):
        gs.Surgery("modo", model).backward([model.losses(), {"fused": model.losses()["fused"]}])
    assert all(p.grad is None for p in model.parameters())
    assert gs.inspect([model.losses(), model.losses(1)], model)["audio+fused"].gram.shape == (2, 2)

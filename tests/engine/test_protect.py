"""A protected objective."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads
from tests.support.shipped import LEAST, SHIPPED, ready, step


def cosine_of(gradient, direction):
    dot = sum(float((a * b).sum()) for a, b in zip(gradient, direction, strict=True))
    size = np.sqrt(
        sum(float((a * a).sum()) for a in gradient) * sum(float((b * b).sum()) for b in direction)
    )
    return dot / size if size else 0.0


LOUD = {"fused": 1.0, "audio": 20.0, "visual": 20.0}


@pytest.mark.parametrize("name", [n for n in SHIPPED if n not in ("modo", "sdmgrad", *LEAST)])
def test_no_direction_conflicts_with_a_protected_objective(name):
    conflicts = 0
    for seed in range(12):
        model = TwoEncoders(seed)
        surgery = gs.Surgery(ready(name, "audio"), model, protect="fused", seed=seed)
        losses, probe = model.losses(seed), TwoEncoders(seed)
        step(gs.Surgery(ready(name, "audio"), probe, seed=seed), probe.losses(seed), weights=LOUD)
        for part in (model.audio, model.visual):
            gradient = torch.autograd.grad(losses["fused"], part.parameters(), retain_graph=True)
            unprotected = cosine_of(
                gradient,
                [
                    p.grad
                    for p in (probe.audio if part is model.audio else probe.visual).parameters()
                ],
            )
            conflicts += unprotected < -1e-6
        step(surgery, losses, weights=LOUD)
        for part in (model.audio, model.visual):
            fresh = model.losses(seed)["fused"]
            gradient = torch.autograd.grad(fresh, part.parameters())
            assert cosine_of(gradient, [p.grad for p in part.parameters()]) >= -1e-9
    if name in (
        "sum",
        "mean",
        "random",
        "constant",
        "graddrop",
        "uw",
        "imtl-l",
        "krum",
        "trimmed-mean",
    ):
        assert conflicts > 0  # there was something to protect from


def test_protection_is_a_projection_and_leaves_other_groups_alone():
    moved_somewhere = 0
    for seed in range(8):
        model, probe = TwoEncoders(seed), TwoEncoders(seed)
        gs.backward(
            model.losses(seed),
            model,
            "sum",
            protect="visual",
            weights={"fused": 50.0, "audio": 1.0, "visual": 1.0},
        )
        gs.backward(
            probe.losses(seed), probe, "sum", weights={"fused": 50.0, "audio": 1.0, "visual": 1.0}
        )
        found, before = grads(model), grads(probe)
        for name, gradient in before.items():
            if gradient is not None and not name.startswith("visual."):
                assert torch.allclose(found[name], gradient, rtol=1e-12)
        names = [n for n in before if n.startswith("visual.")]
        protected = torch.autograd.grad(model.losses(seed)["visual"], model.visual.parameters())
        unprotected = cosine_of(protected, [before[n] for n in names])
        if unprotected < 0:
            moved_somewhere += 1
            assert cosine_of(protected, [found[n] - before[n] for n in names]) == pytest.approx(1)
            assert cosine_of(protected, [found[n] for n in names]) == pytest.approx(0, abs=1e-9)
        else:
            assert all(torch.allclose(found[n], before[n], rtol=1e-12) for n in names)
    assert moved_somewhere


def test_a_wrong_protect_is_an_error():
    model = TwoEncoders()
    for misspelt in (
        gs.Surgery("sum", model, protect="audi"),
        gs.Surgery("dgl", model, joint="audoi"),
        gs.Surgery("a-gem", model, objective="adio"),
    ):
        with pytest.raises(gs.InputError, match="Did you mean 'audio'"):
            misspelt.backward(model.losses())
    late = gs.Surgery("sum", model, protect="memory")
    with pytest.warns(UserWarning, match="protect: no loss is named 'memory' yet"):
        late.backward(model.losses())
    model.zero_grad()
    late.backward({**model.losses(), "memory": model.losses(1)["fused"]})
    model.zero_grad(set_to_none=True)
    with pytest.raises(gs.InputError, match="expected the name of an objective"):
        gs.Surgery("sum", model, protect=0)
    with pytest.raises(gs.InputError, match="several batches"):
        gs.Surgery("modo", model, protect="audio")
    assert all(p.grad is None for p in model.parameters())
    surgery = gs.Surgery("sum", model, protect="audio")
    surgery.backward(model.losses())
    surgery.backward(
        {"fused": model.losses()["fused"]}
    )  # losses may come and go, the protected one too


def test_a_protected_objective_below_min_objectives():
    weight = torch.nn.Parameter(torch.ones(2))
    gs.Surgery("upgrad", [weight], protect="a", min_objectives=3).backward(
        {"a": weight.sum(), "b": -2 * weight.sum()}
    )
    assert weight.grad.tolist() == [0.0, 0.0]

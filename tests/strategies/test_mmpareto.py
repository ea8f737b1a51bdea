"""mmpareto: its cases, that it conflicts with no gradient, and the official procedure for
rescale="tensor".
"""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.testing import KINDS
from tests.support.mmpareto import official_procedure
from tests.support.models import TwoEncoders
from tests.support.strategies import direction, jacobian


def test_equals_the_official_procedure():
    conflicts = calm = 0
    for seed in range(50):
        model = TwoEncoders(seed, width=5 + seed % 4)
        losses = model.losses(seed)
        expected, n = official_procedure(model, losses, 1.5)
        conflicts, calm = conflicts + n, calm + 2 - n
        model.zero_grad()
        gs.backward(losses, model, "mmpareto", rescale="tensor", gamma=1.5)
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), (seed, name)
    assert conflicts >= 20
    assert calm >= 20


@pytest.mark.parametrize("options", [{}, {"gamma_on": "conflict"}, {"rescale": "none"}])
def test_group_never_conflicts_on_models(options):
    conflicts = 0
    for seed in range(50):
        model = TwoEncoders(seed)
        losses = model.losses(seed)
        record = gs.backward(losses, model, "mmpareto", retain_graph=True, **options)
        for encoder in ("audio", "visual"):
            parameters = list(getattr(model, encoder).parameters())
            direction = torch.cat([p.grad.flatten() for p in parameters])
            for name in ("fused", encoder):
                gradient = torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(losses[name], parameters, retain_graph=True)
                    ]
                )
                assert gradient @ direction > 0
            conflicts += bool(record["+".join(sorted(["fused", encoder]))].conflicts)
    assert conflicts >= 20


def test_mmpareto_counterexample():
    """Two scalar tensors: the official per-tensor length bends the direction into the unimodal
    objective; one factor does not.
    """
    blocks = np.array([[[4.0, -2.0], [-2.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
    rows = np.array([[-2.0, -1.0], [1.0, 1.0]])
    tensor = gs.get_strategy("mmpareto", rescale="tensor", gamma=1.5).weights(
        blocks.sum(0), block_grams=blocks
    )
    bent = np.einsum("kn,nk->k", tensor, rows)
    assert bent == pytest.approx([-1.5, 9 / 13])
    assert bent @ rows[1] == pytest.approx(
        -1.5 + 9 / 13
    )  # -0.81: it conflicts with the unimodal objective
    group = rows.T @ gs.get_strategy("mmpareto", gamma=1.0).weights(rows @ rows.T)
    assert (rows @ group > 0).all()


def test_mmpareto_cases():
    plain = gs.get_strategy("mmpareto")
    assert plain.weights([[1.0, 0.0], [0.0, 1.0]]).tolist() == [
        1.5,
        1.5,
    ]  # orthogonal is no conflict
    assert gs.get_strategy("mmpareto", gamma_on="conflict").weights(np.eye(2)).tolist() == [
        1.0,
        1.0,
    ]
    assert direction("mmpareto", [[1.0, 2.0], [0.0, 0.0]], gamma=1.0).tolist() == [1.0, 2.0]
    assert direction("mmpareto", [[0.0, 0.0], [0.0, 0.0]]).tolist() == [0.0, 0.0]
    assert direction("mmpareto", [[1.0, 2.0], [-1.0, -2.0]]).tolist() == [0.0, 0.0]
    # a zero row leaves the others their problem
    three = direction(
        "mmpareto", torch.tensor([[1.0, 0.2], [0.0, 0.0], [-1.0, 0.3]], dtype=torch.float64)
    )
    two = direction("mmpareto", torch.tensor([[1.0, 0.2], [-1.0, 0.3]], dtype=torch.float64))
    assert torch.allclose(three, two)
    # the length is that of the sum, never shrunk, and capped
    rows = np.array([[1.0, 0.01], [-0.9, 0.01]])
    gram = rows @ rows.T
    found = rows.T @ gs.get_strategy("mmpareto", gamma=1.0).weights(gram)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(rows.sum(0)))
    none = rows.T @ gs.get_strategy("mmpareto", gamma=1.0, rescale="none").weights(gram)
    capped = rows.T @ gs.get_strategy("mmpareto", gamma=1.0, max_rescale=2.0).weights(gram)
    assert np.allclose(capped, 2 * none)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_mmpareto_group_never_conflicts(kind, n):
    rng = np.random.default_rng(n)
    for spread in (0.0, 3.0, 6.0):
        for _ in range(40):
            rows = jacobian(rng, n, kind, spread)
            found = direction("mmpareto", rows).numpy()
            allowed = (
                1e-9
                * np.linalg.norm(rows, axis=1)
                * max(np.linalg.norm(rows, axis=1).sum() * 150, 1e-300)
            )
            assert (rows @ found >= -allowed).all()

"""lr-annealing against its definition, written out over several steps."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.definitions import close

pytestmark = pytest.mark.quick


def annealed(rows, weights, residual, *, beta, weighted, splits):
    """λ after one renewal, objective by objective and tensor by tensor."""
    new = list(weights)
    for i, row in enumerate(rows):
        if i == residual:
            continue
        parts, start = [], 0
        for size in splits:
            entries = [abs(x) for x in row[start : start + size]]
            parts.append(sum(entries) / size)
            start += size
        mean = sum(parts) / len(parts) * (weights[i] if weighted else 1.0)
        new[i] = beta * weights[i] + (1 - beta) * max(abs(x) for x in rows[residual]) / mean
    return new


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("average", "sizes"), [("tensors", (4, 3)), ("coordinates", (7,))])
def test_it_is_its_formula_over_several_steps(weighted, average, sizes):
    rng = np.random.default_rng(0)
    chosen = gs.get_strategy(
        "lr-annealing", residual="1", weighted=weighted, average=average, period=2
    )
    state, weights = gs.State(), [1.0] * 3
    for step in range(6):
        rows = rng.normal(size=(3, 7)) * [[1.0], [30.0], [0.01]]
        if step % 2 == 0:
            weights = annealed(rows, weights, 1, beta=0.9, weighted=weighted, splits=sizes)
        found = chosen(torch.tensor(rows), state=state, splits=(4, 3)).numpy()
        assert close(found, rows.T @ weights, 1e-12)


def test_the_weights_tend_to_the_ratio_or_its_root():
    rows = torch.tensor([[8.0, 0.0], [0.5, 0.5]], dtype=torch.float64)  # max 8, mean 0.5
    for weighted, limit in ((True, 4.0), (False, 16.0)):
        chosen = gs.get_strategy("lr-annealing", weighted=weighted, period=1)
        state = gs.State()
        for _ in range(200):
            found = chosen(rows, state=state)
        assert found.tolist() == pytest.approx([8 + limit / 2, limit / 2])


def test_an_objective_without_a_gradient_keeps_its_weight():
    chosen, state = gs.get_strategy("lr-annealing", period=1, beta=0.5), gs.State()
    full = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    chosen(full, state=state)  # 0.5 + 0.5 · 2/0.5
    chosen(full * torch.tensor([[1.0], [0.0]]), state=state)
    found = chosen(full, state=state)
    assert found.tolist() == pytest.approx([2.0, 0.5 * 2.5 + 0.5 * 2 / (2.5 * 0.5)])


def test_where_the_residual_does_not_reach_it_is_the_sum():
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(3, 1) for name in ("field", "edge")})
    x = torch.linspace(-1, 1, 12).view(4, 3)
    field, edge = model["field"](x), model["edge"](x)
    start = (field + edge - 1).square().mean()
    losses = {"equation": field.square().mean(), "start": start, "boundary": edge.square().mean()}
    plain = torch.autograd.grad(
        losses["start"] + losses["boundary"], model["edge"].weight, retain_graph=True
    )[0]
    record = gs.Surgery("lr-annealing", model, residual="equation").backward(losses)
    assert set(record.groups) == {"equation+start", "boundary+start"}
    torch.testing.assert_close(model["edge"].weight.grad, plain)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_no_scale_matters(scale):
    rows = np.random.default_rng(1).normal(size=(3, 5))
    chosen = gs.get_strategy("lr-annealing")
    plain, scaled = (
        chosen(torch.tensor(rows * s), state=gs.State()).numpy() / s for s in (1.0, scale)
    )
    assert close(scaled, plain, 1e-12)
    for dtype in (torch.float32, torch.bfloat16):
        found = chosen(torch.tensor(rows * scale, dtype=dtype), state=gs.State())
        assert close(found.double().numpy() / scale, plain, 3e-2)

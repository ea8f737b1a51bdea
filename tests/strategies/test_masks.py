"""Masks over coordinates against definitions written out apart, one coordinate at a time."""

import math

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.definitions import close

pytestmark = pytest.mark.quick
SPLITS = (3, 5, 4)


def drawn(rng, n=4):
    """Gradients with agreement and without, entries of zero, and one coordinate of zeros."""
    rows = rng.normal(size=(n, 12)) + rng.choice([-2.0, 0.0, 2.0], size=12)
    rows[rng.random(rows.shape) < 0.1] = 0.0
    rows[:, 0] = 0.0
    return rows


def rescaled(values, masks):
    """Each tensor's part divided by the mean of its mask."""
    found = []
    for part, mask in zip(np.split(values, [3, 8]), np.split(masks, [3, 8]), strict=True):
        found.append(part / mask.mean() if mask.any() else 0 * part)
    return np.concatenate(found)


def and_mask_by_definition(rows, tau, geometric, rescale):
    values, masks = np.zeros(12), np.zeros(12)
    for c, column in enumerate(rows.T):
        if abs(sum(map(np.sign, column))) < tau * len(column) - 1e-6:
            continue
        masks[c] = 1
        values[c] = sum(column) / len(column)
        if geometric:
            size = math.prod(map(abs, column)) ** (1 / len(column))
            values[c] = math.copysign(size, values[c])
    return rescaled(values, masks) if rescale else values


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("geometric", [False, True])
@pytest.mark.parametrize("tau", [0.0, 0.5, 0.6, 1.0])
def test_and_mask_is_its_definition(tau, geometric, rescale):
    rng = np.random.default_rng(0)
    mean = "geometric" if geometric else "arithmetic"
    chosen = gs.get_strategy("and-mask", tau=tau, mean=mean, rescale=rescale)
    for n in (2, 4, 5):
        rows = drawn(rng, n)
        expected = and_mask_by_definition(rows, tau, geometric, rescale)
        for scale in (1.0, 1e-20, 1e20):
            found = chosen(torch.tensor(rows) * scale, splits=SPLITS).numpy() / scale
            assert close(found, expected)
        single = chosen(torch.tensor(rows * 1e-20, dtype=torch.float32), splits=SPLITS)
        assert close(single.double().numpy() * 1e20, expected, 1e-4)


def test_a_share_of_three_in_five_is_sixty_per_cent():
    rows = torch.tensor([[1.0]] * 4 + [[-1.0]])
    assert gs.get_strategy("and-mask", tau=0.6)(rows).item() == pytest.approx(0.6)
    assert gs.get_strategy("and-mask", tau=0.61)(rows).item() == 0


def sand_mask_by_definition(rows, tau, k, rescale):
    values, masks = np.zeros(12), np.zeros(12)
    for c, column in enumerate(rows.T):
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        excess = abs(sum(map(np.sign, column))) / len(column) - tau
        if excess > 1e-9:
            masks[c] = math.tanh(k / variance * excess) if variance else 1.0
        values[c] = masks[c] * mean
    return rescaled(values, masks) if rescale else values


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(("tau", "k"), [(0.0, 1.0), (0.5, 10.0), (0.2, 1e-3)])
def test_sand_mask_is_its_definition(tau, k, rescale):
    rng = np.random.default_rng(1)
    chosen = gs.get_strategy("sand-mask", tau=tau, k=k, rescale=rescale)
    for n in (2, 4, 5):
        for scale in (1.0, 1e-20, 1e20):  # k is absolute: scales differ in more than length
            rows = drawn(rng, n) * scale
            expected = sand_mask_by_definition(rows, tau, k, rescale)
            assert close(chosen(torch.tensor(rows), splits=SPLITS).numpy(), expected)


def test_sand_mask_in_float32_has_the_range_of_float64():
    rows = torch.tensor([[1e20, -1e20], [2e20, 3e20]])
    found = gs.get_strategy("sand-mask")(rows)
    assert found.tolist() == pytest.approx([3e20, 0.0])  # one of two coordinates, rescaled


def test_sand_mask_of_equal_gradients_is_theirs():
    rows = torch.tensor([[1.0, -2.0]] * 3)
    assert gs.get_strategy("sand-mask")(rows).tolist() == [1.0, -2.0]
    assert gs.get_strategy("sand-mask", tau=1.0)(rows).tolist() == [0.0, 0.0]


def official(gradients, mask_of):
    """As the two official codes mask a parameter's gradients [n, ...], in their float32."""
    stacked = torch.stack(gradients)
    mask = mask_of(stacked).float()
    return mask * stacked.mean(0) / (1e-10 + mask.sum() / mask.numel())


def test_a_step_does_what_the_official_codes_do_per_parameter():
    torch.manual_seed(0)
    model, x = torch.nn.Linear(6, 3), torch.randn(8, 6)
    losses = {str(i): (model(x + i) - i).square().mean() for i in range(3)}
    gradients = [
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        for loss in losses.values()
    ]

    def agreement(stacked):
        return stacked.sign().mean(0).abs()

    cases = {
        "and-mask(tau=0.6, rescale=True)": lambda s: agreement(s) >= 0.6,
        "sand-mask(tau=0.5, k=2)": lambda s: torch.tanh(2 / s.var(0) * (agreement(s) - 0.5)).clamp(
            min=0
        ),
    }
    for strategy, mask_of in cases.items():
        model.zero_grad()
        gs.backward(losses, model, strategy, retain_graph=True)
        for p, *parts in zip(model.parameters(), *gradients, strict=True):
            torch.testing.assert_close(p.grad, official(parts, mask_of), rtol=1e-4, atol=1e-6)

"""cg-mnist-small: colour tells the label in validation and not at test."""

import pytest
import torch

from gradsurgery import get_strategy
from gradsurgery.compare.train import train
from gradsurgery.tasks import get_task
from gradsurgery.tasks.cg_mnist import painted
from gradsurgery.tasks.digits import load_digits, pooled


@pytest.mark.exhaustive
def test_its_images_are_small_and_painted_in_one_colour_each():
    images, labels = load_digits().test
    gray, colour, same = painted((pooled(images), labels), 5, shortcut=True)
    assert gray.shape == (1000, 1, 14, 14)
    assert colour.shape == (1000, 3, 14, 14)
    assert torch.equal(same, labels)
    hue = (colour.sum((2, 3)) / gray.sum((2, 3)))[:, :, None, None]
    assert torch.allclose(colour, hue * gray, atol=1e-5)


@pytest.mark.exhaustive
def test_colour_is_a_shortcut_that_fails_at_test():
    problem = get_task("cg-mnist-small").problem(None, 3, steps=150)
    row = train(problem, get_strategy("sum"), seed=3, lr=0.03, on_step=lambda *_: None)
    assert set(row["test"]) == {"fused", "gray", "colour"}
    assert row["test"]["gray"] > 75
    assert row["validation"]["fused"] > 90
    assert row["test"]["fused"] < row["validation"]["fused"] - 15

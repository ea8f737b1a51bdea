"""multimnist-hard: half of the right digit is spoilt, the left one is not, and splits are apart."""

import pytest
import torch

from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_task
from gradsurgery.tasks import get_task
from gradsurgery.tasks.multimnist import pairs
from tests.support.tasks import batch_of, learned, loaded


@pytest.mark.quick
def test_half_of_the_pixels_of_the_right_digit_are_black_or_white_by_chance():
    blank = (torch.zeros(200, 28, 28), torch.zeros(200).long())
    images = pairs(blank, 1, 0, 0.5)[0] * 0.3081 + 0.1307
    assert images.unique(sorted=True).tolist() == pytest.approx([0, 1], abs=1e-5)
    # a quarter turns white, where the right digit is: 28 of 36 pixels each way
    assert images.mean().item() == pytest.approx(0.25 * (28 / 36) ** 2, abs=0.01)
    full = (torch.ones(200, 28, 28), torch.zeros(200).long())
    assert pairs(full, 1, 0, 0.5)[0][:, 0, :20, :20].std() < 1e-3  # the left digit is whole
    assert not torch.equal(*(pairs(blank, 1, seed, 0.5)[0] for seed in (0, 1)))
    assert torch.equal(*(pairs(blank, 1, 1, 0.5)[0] for _ in range(2)))


@pytest.mark.quick
def test_pairs_without_noise_are_those_of_multimnist():
    images = torch.rand(30, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 10
    made, named = pairs((images, labels), 2, 4)
    partner = torch.randint(30, (60,), generator=torch.Generator().manual_seed(4))
    assert torch.equal(named, torch.stack([labels.repeat(2), labels[partner]], 1))
    assert made[0, 0, 0, 0] == pytest.approx(((images[0, 0, 0] - 0.1307) / 0.3081).item())


@pytest.mark.exhaustive
def test_a_few_steps_learn_and_the_check_finds_nothing_wrong():
    chosen = get_task("multimnist-hard")
    assert (chosen.primary, chosen.delta) == ("mean", 1.0)
    problem = loaded("multimnist-hard")
    assert problem.alone == {"left": ["left"], "right": ["right"]}
    assert [tensor.shape for tensor in batch_of(problem)] == [(64, 1, 28, 28), (64, 2)]
    figures = learned("multimnist-hard", 60)
    assert set(figures) == {"mean", "left", "right"}
    assert figures["left"] > 25
    assert figures["mean"] == pytest.approx((figures["left"] + figures["right"]) / 2)
    plan = Plan.of(["multimnist-hard"], ["sum", "mmpareto", "modo", "famo"], [0])
    found = check_task(plan, plan.tasks[0])
    assert found.wrong == found.notes == []

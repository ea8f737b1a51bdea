"""digit-halves and digit-pairs: what the images are, what a seed changes, what is learned."""

import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare.loop import Loop, endless, seeded
from gradsurgery.tasks import get_task
from gradsurgery.tasks.digit_halves import _halves
from gradsurgery.tasks.digit_pairs import _pairs
from gradsurgery.tasks.digits import load_digits, pooled
from tests.support.tasks import batch_of, loaded

NAMES = ("digit-halves", "digit-pairs")


def noise():
    return torch.Generator().manual_seed(3)


def test_halves_are_those_of_one_digit_and_have_their_noise():
    images, labels = load_digits().test
    upper, lower, same = _halves((images, labels), noise())
    assert torch.equal(same, labels)
    clean = images.reshape(-1, 14, 2, 14, 2).mean((2, 4))  # [n, 14, 14]
    for half, rows, sigma in ((upper, slice(0, 7), 0.1), (lower, slice(7, 14), 0.3)):
        left = half - clean[:, rows]
        assert left.mean().item() == pytest.approx(0, abs=0.003)
        assert left.std().item() == pytest.approx(sigma, abs=0.003)


def test_pairs_overlap_two_digits_of_one_split_with_the_label_of_each():
    images, labels = load_digits().test
    pairs, both = _pairs((images, labels), noise())
    assert pairs.shape == (2000, 1, 18, 18)
    assert torch.equal(both[:, 0], labels.repeat(2))
    canvas, small = 0.15 + 0.3 * pairs[:, 0], pooled(images)
    left, right = canvas[:1000, :14, :14], canvas[:1000, 4:, 4:]
    assert (left >= small - 1e-6).all()
    # the strip that only the right digit reaches tells which digits it may be
    for place in range(20):
        found = (right[place, 10:] - small[:, 10:]).abs().amax((1, 2)) < 1e-6
        owners = labels[found].tolist()
        assert both[place, 1].item() in owners
    assert abs(torch.corrcoef(both.T.float())[0, 1]) < 0.05  # partners are independent


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_its_own_data_and_the_same_again(name):
    first, again, other = (get_task(name).problem(None, seed) for seed in (1, 1, 2))
    mine, same, theirs = map(batch_of, (first, again, other))
    assert all(torch.equal(a, b) for a, b in zip(mine, same, strict=True))
    assert not torch.equal(mine[0], theirs[0])
    with seeded(0):
        model = first.model()
    splits = ("validation", "test")
    assert all(first.evaluate(model, s) == again.evaluate(model, s) for s in splits)
    assert all(first.evaluate(model, s) != other.evaluate(model, s) for s in splits)


def test_groups_are_encoders_trunk_and_heads():
    shapes = {
        "digit-halves": {"fused+upper", "fused+lower", "fused", "upper", "lower"},
        "digit-pairs": {"left+right", "left", "right"},
    }
    for name, groups in shapes.items():
        problem = loaded(name)
        assert set(gs.inspect(problem.losses(problem.model(), batch_of(problem)))) == groups


def trained(name, strategy, steps, only=None):
    problem, task = loaded(name), get_task(name)
    with seeded(0):
        loop = Loop(problem, gs.get_strategy(strategy), seed=0, lr=task.lr, steps=steps, only=only)
        draw = endless(problem)
        for _ in range(steps):
            loop.step(draw)
        loop.model.eval()
        with torch.no_grad():
            return problem.evaluate(loop.model, "test")


@pytest.mark.parametrize("strategy", ["agm", "ogm-ge"])
def test_halves_have_scores_for_methods_of_modalities(strategy):
    assert trained("digit-halves", strategy, 2)["fused"] >= 0


@pytest.mark.exhaustive
def test_two_halves_tell_more_than_one_and_the_lower_one_is_the_weak_one():
    found = {
        name: trained("digit-halves", "sum", 200, only)[name]
        for name, only in (("fused", None), ("upper", ["upper"]), ("lower", ["lower"]))
    }
    assert 50 < found["lower"] < found["upper"] - 5
    assert found["upper"] + 3 < found["fused"] < 97


@pytest.mark.exhaustive
def test_pairs_are_read_though_not_all():
    found = trained("digit-pairs", "sum", 200)
    assert 55 < found["both"] < min(found["left"], found["right"]) < 97

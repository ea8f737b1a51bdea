"""adaptive-weight against the official code's formula."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.definitions import close, d, pairs

pytestmark = pytest.mark.quick


def official(reconstruction, adversarial, disc_weight, delta=1e-4):
    """`calculate_adaptive_weight`, in numpy."""
    ratio = np.linalg.norm(reconstruction) / (np.linalg.norm(adversarial) + delta)
    return min(max(ratio, 0.0), 1e4) * disc_weight


def test_it_is_the_official_formula():
    clamped = 0
    for rec, adv in pairs(dimension=5):
        weight = official(rec, adv, 0.8)
        clamped += weight == 0.8 * 1e4
        found = d("adaptive-weight", [adv, rec], adversarial="0", factor=0.8, delta=1e-4)
        assert close(found, rec + weight * adv, 1e-12)
    assert 10 < clamped < 60


def test_the_adversarial_gradient_has_the_length_of_the_reconstructions():
    rng = np.random.default_rng(0)
    for scale in (1e-20, 1.0, 1e20):
        rows = scale * rng.normal(size=(2, 6)) * [[1.0], [1e3]]
        added = d("adaptive-weight", rows, adversarial="1") - rows[0]
        assert np.linalg.norm(added) == pytest.approx(np.linalg.norm(rows[0]), rel=1e-9)
        assert added @ rows[1] > 0


def test_without_a_named_reconstruction_it_is_the_sum_of_all_others():
    rows = np.random.default_rng(1).normal(size=(4, 6))
    others, adversarial = rows[[0, 1, 3]].sum(0), rows[2]
    ratio = np.linalg.norm(others) / np.linalg.norm(adversarial)
    assert close(d("adaptive-weight", rows, adversarial="2"), others + ratio * adversarial)
    named = np.linalg.norm(rows[3]) / np.linalg.norm(adversarial)
    found = d("adaptive-weight", rows, adversarial="2", reconstruction="3")
    assert close(found, others + named * adversarial)


def test_gradients_of_zero():
    assert d("adaptive-weight", [[3.0, 0.0], [0.0, 0.0]], adversarial="1").tolist() == [3.0, 0.0]
    assert d("adaptive-weight", [[0.0, 0.0], [0.0, 2.0]], adversarial="1").tolist() == [0.0, 0.0]
    tiny = d("adaptive-weight", [[0.0, 1e-30], [1e30, 0.0]], adversarial="0")
    assert tiny.tolist() == pytest.approx([1e30, 1e-26])


def test_at_the_features_one_weight_holds_for_decoder_and_encoder():
    """The gradients at the last layer's input decide for all parameters before it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    x, score = torch.randn(8, 4).double(), torch.randn(4).double()
    last = nn.Linear(5, 4).double()

    def losses(features):
        made = last(features)
        return {"rec": (made - x).abs().mean(), "adv": -(made @ score).tanh().mean()}

    features = model(x)
    both = losses(features)
    rec, adv = (
        torch.autograd.grad(both[name], features, retain_graph=True)[0] for name in ("rec", "adv")
    )
    total = both["rec"] + official(rec, adv, 1.0, 0.0) * both["adv"]
    expected = torch.autograd.grad(total, list(model.parameters()))
    features = model(x)
    surgery = gs.Surgery("adaptive-weight", model, adversarial="adv", reconstruction="rec")
    surgery.backward(losses(features), features=features)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_groups_that_one_of_the_two_does_not_reach_have_the_sum():
    chosen = gs.get_strategy("adaptive-weight", adversarial="adv", reconstruction="rec")
    for names in (("rec", "codebook"), ("adv", "codebook"), ("adv",)):
        given = {"gram": np.diag(np.arange(1.0, len(names) + 1)), "objectives": names}
        assert chosen.solve(given, len(names)).weights.tolist() == [1.0] * len(names)


def test_one_name_for_both_is_an_error():
    with pytest.raises(gs.InputError, match="both 'a'; give the names of two losses"):
        gs.get_strategy("adaptive-weight", adversarial="a", reconstruction="a").weights(np.eye(2))

"""Losses of exactly zero, huge losses, and learned weights."""

import math
import warnings

import numpy as np
import pytest
import torch

import gradsurgery as gs


def hinges(model, x, zero):
    """Two losses; the second is exactly zero where asked for."""
    margin = model(x)
    hinge = torch.relu(margin - (1e3 if zero else -5)).mean()
    return {"ce": margin.pow(2).mean() + 0.1, "hinge": hinge}


GO_ON = ["famo", "dwa(window=1)", "dwa", "moco", "gradnorm", "db-mtl", "stch(window=2)", "stch"]


REFUSE = ["gls", "mgda(normalize='loss')", "mgda(normalize='loss+')", "gradnorm"]


@pytest.mark.filterwarnings("ignore:.*hinge. is at its minimum")
@pytest.mark.parametrize("name", GO_ON)
def test_a_loss_of_exactly_zero_does_not_end_the_training(name):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(3, 1), torch.randn(8, 3)
    surgery = gs.Surgery(name, model)
    for zero in (False, True, True, False, True, True, True, False, False):
        model.zero_grad()
        losses = hinges(model, x, zero)
        assert (losses["hinge"].item() == 0) == zero
        surgery.backward(losses)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore:.*hinge. is at its minimum")
@pytest.mark.parametrize("name", ["famo", "dwa", "moco", "db-mtl", "stch"])
def test_a_first_loss_of_exactly_zero_passes_where_the_formula_is_defined(name):
    model, x = torch.nn.Linear(3, 1), torch.ones(8, 3)
    surgery = gs.Surgery(name, model)
    for _ in range(3):
        surgery.backward(hinges(model, x, True))
    assert torch.isfinite(model.weight.grad).all()


def test_famo_goes_on_as_its_official_code_does():
    losses = np.array([0.5, 0.0])
    with pytest.warns(UserWarning, match=r"loss '1' is at its minimum.*leave it out"):
        weights = gs.get_strategy("famo").weights(np.eye(2), losses=losses, state=gs.State())
    expected = 0.5 / (losses + 1e-8)
    assert weights == pytest.approx(expected / expected.sum(), rel=1e-9)


@pytest.mark.parametrize("name", REFUSE)
def test_a_loss_of_zero_is_refused_by_name_where_the_formula_divides_by_it(name):
    model, x = torch.nn.Linear(3, 1), torch.ones(8, 3)
    with pytest.raises(gs.InputError, match="'hinge'"):
        gs.Surgery(name, model).backward(hinges(model, x, True))
    assert model.weight.grad is None


def test_dwa_knows_no_rate_after_a_mean_of_zero():
    dwa, state = gs.get_strategy("dwa", window=1), gs.State()
    for losses in ([1.0, 0.0], [0.5, 2.0]):
        dwa.weights(np.eye(2), losses=losses, state=state)
    powers = np.exp(np.array([0.5, 1.0]) / 2)
    weights = dwa.weights(np.eye(2), losses=[1.0, 1.0], state=state)
    assert weights == pytest.approx(2 * powers / powers.sum())


HUGE = [5e-3, 0.6, 4e4]


LEVELS = [("uw", 0.5), ("imtl-l", 1.0), ("uw(lr=0.5)", 0.5), ("imtl-l(lr=0.1)", 1.0)]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_large_loss_is_weighed_not_switched_off(name, level):
    chosen, state = gs.get_strategy(name), gs.State()
    for k in range(1500):
        weights = chosen.weights(np.eye(3), losses=HUGE, state=state)
        assert weights[2] * HUGE[2] > level / 3, f"step {k}"
    assert weights[2] * HUGE[2] < 2 * level
    # one outlier costs a factor of e
    outlier = [5e-3, 0.6 * 1e9, 4e4]
    before = chosen.weights(np.eye(3), losses=outlier, state=state)
    after = chosen.weights(np.eye(3), losses=HUGE, state=state)
    assert after[1] == pytest.approx(before[1] / math.e)


@pytest.mark.parametrize("name", ["uw", "imtl-l"])
def test_a_weight_that_has_sunk_to_nothing_is_warned_of(name):
    """A state as it was saved before steps were bounded."""
    logs = {"uw": ("log variance", 50.0), "imtl-l": ("s", -50.0)}[name]
    entries = ((("0",), 0.0), (("1",), logs[1]))
    state = gs.State.from_state_dict({"numbers": {logs[0]: entries}, "tensors": {}})
    with pytest.warns(UserWarning, match=f"'{name}': the weight of '1' is .* takes no part"):
        gs.get_strategy(name).weights(np.eye(2), losses=[1.0, 4e4], state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for losses in ([1e-12, 1.0], [0.0, 1.0], [1e12, 1.0], [-1.0, 1.0]):
            state = gs.State()
            for _ in range(40):
                gs.get_strategy(name).weights(np.eye(2), losses=losses, state=state)


def test_no_gradient_is_lost_for_good_by_excess_mtl():
    """After a first gradient that was tiny every later one is huge; the other one returns."""
    excess, state = gs.get_strategy("excess-mtl"), gs.State()
    excess(torch.tensor([[1e-6, 0.0], [0.0, 1.0]]), state=state)
    for _ in range(3):
        excess(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), state=state)
    for _ in range(200):
        d = excess(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), state=state)
    assert d[1] > 1
    # one whose first gradient is zero begins with the first that is not
    state = gs.State()
    for first in (0.0, 0.0, 1.0):
        d = excess(torch.tensor([[first, 0.0], [0.0, 1.0]]), state=state)
    d = excess(torch.tensor([[9.0, 0.0], [0.0, 1.0]]), state=state)
    assert d[0] / 9 > 1.5


def test_gradnorm_by_gradient_descent_moves_a_weight_by_one_at_most():
    gradnorm, state = gs.get_strategy("gradnorm", optimizer="sgd"), gs.State()
    gram = np.diag([1.0, 1.0, 1e12])
    weights = [gradnorm.weights(gram, losses=[1.0] * 3, state=state) for _ in range(200)]
    assert min(w[:2].min() for w in weights) > 0.5

"""metric="optimizer": problems solved on JPJᵀ, P by hand, and what then holds of the real step."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.engine.test_optimizer_step import OPTIMIZERS, Net, flat, gradients


class Opposed(nn.Module):
    """Two targets that one output cannot have, from inputs of very different size."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))

    def losses(self, step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(6, 4, generator=generator) * torch.tensor([0.05, 0.3, 1.0, 4.0])
        y = 0.3 * torch.randn(2, 6, 1, generator=generator)
        z = self.trunk(x)
        return {"a": (z - 1 - y[0]).pow(2).mean(), "b": (z + 1 - y[1]).pow(2).mean()}


def adam_by_hand(optimizer, parameters, bound=math.inf):
    """lr / ((1 − β₁ᵗ)(√(v / (1 − β₂ᵗ)) + ε)), bounded by its median, of geometric mean 1."""
    (group,) = optimizer.param_groups
    beta1, beta2 = group["betas"]
    found = []
    for p in parameters:
        state = optimizer.state[p]
        t, v = state["step"].item(), state["exp_avg_sq"].double().numpy().reshape(-1)
        found.append(1 / ((1 - beta1**t) * (np.sqrt(v / (1 - beta2**t)) + group["eps"])))
    scale = np.concatenate(found)
    middle = np.sort(scale)[(len(scale) - 1) // 2]  # the lower one of two, as torch's
    scale = group["lr"] * np.minimum(scale, bound * middle)
    return scale / np.exp(np.log(scale).mean())


def trained(strategy, steps, dtype=torch.float64, make=None, kind=Net, **settings):
    """A model, its optimizer and its Surgery, some steps on."""
    model = kind(0, dtype) if kind is Net else kind()
    make = make or (lambda p: torch.optim.Adam(p, lr=0.01))
    optimizer, surgery = make(model.parameters()), gs.Surgery(strategy, model, **settings)
    for step in range(steps):
        optimizer.zero_grad()
        surgery.step(model.losses(step), optimizer, metric="optimizer")
    optimizer.zero_grad()
    return model, optimizer, surgery


def direction(parameters):
    return flat([p.grad for p in parameters])


@pytest.mark.parametrize("bound", [10.0, 1.5])
@pytest.mark.parametrize("name", ["mgda", "upgrad", "cagrad", "pcgrad", "imtl-g", "fairgrad"])
def test_weights_are_the_strategys_on_the_gram_matrix_in_adams_metric(name, bound):
    model, optimizer, surgery = trained(name, 7)
    trunk, losses = list(model.trunk.parameters()), model.losses(7)
    rows = gradients(model, losses, trunk)
    scaled = rows * adam_by_hand(optimizer, trunk, bound) @ rows.T
    group = surgery.step(losses, optimizer, metric="optimizer", bound=bound)["a+b+c"]
    options = {"rng": np.random.default_rng(0)} if name == "pcgrad" else {}
    assert np.allclose(group.solved_gram, scaled, rtol=1e-6, atol=0)
    assert np.allclose(group.gram, rows @ rows.T, rtol=1e-9, atol=1e-12)
    assert group.solved_in == "adam"
    if not options:  # its order of projections is drawn from the step's own numbers
        expected = gs.get_strategy(name).weights(scaled)
        assert np.allclose(group.weights, expected, rtol=1e-6, atol=1e-6)
        other = gs.get_strategy(name).weights(rows @ rows.T)
        assert not np.allclose(group.weights, other, rtol=1e-2)
    size = np.linalg.norm(rows, axis=1).sum()
    assert np.allclose(direction(trunk), rows.T @ group.weights, rtol=0, atol=1e-9 * size)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_an_optimizers_first_step_it_is_bit_for_bit_the_euclidean_one(name):
    steps = 3 if name in ("sgd", "momentum") else 1  # whose metric stays constant
    one, other = Net(), Net()
    first, second = (OPTIMIZERS[name](m.parameters()) for m in (one, other))
    solved, plain = gs.Surgery("nash-mtl", one), gs.Surgery("nash-mtl", other)
    for step in range(steps):
        first.zero_grad()
        second.zero_grad()
        group = solved.step(one.losses(step), first, metric="optimizer")["a+b+c"]
        usual = plain.step(other.losses(step), second)["a+b+c"]
        assert (group.solved_in, usual.solved_in) == ("identity", None)
        assert np.array_equal(group.weights, usual.weights)
        assert np.array_equal(group.solved_gram, group.gram)
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
            assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize(("name", "options"), [("mgda", {}), ("upgrad", {}), ("cagrad", {"c": 1})])
def test_without_momentum_no_objective_rises_where_the_euclidean_metric_lets_it(name, options):
    risen = {}
    for metric in ("euclidean", "optimizer"):
        model = Opposed()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003, betas=(0.0, 0.999))
        surgery, risen[metric] = gs.Surgery(gs.get_strategy(name, **options), model), 0
        trunk = list(model.parameters())
        for step in range(20):
            optimizer.zero_grad()
            losses = model.losses(step)
            rows, before = gradients(model, losses, trunk), flat(trunk)
            surgery.step(losses, optimizer, metric=metric, bound=1e6)
            moved = flat(trunk) - before
            along = rows @ moved / np.linalg.norm(rows, axis=1) / np.linalg.norm(moved)
            # of the first steps' gradients half are in v only after the step
            risen[metric] += step >= 5 and along.max() > 1e-6
    assert risen["optimizer"] == 0
    assert risen["euclidean"] > 5


def test_a_constant_in_the_metric_changes_nothing():
    """As a learning rate is."""
    model, optimizer, surgery = trained("nash-mtl", 5)
    others = copy.deepcopy((model, optimizer, surgery))
    optimizer.param_groups[0]["lr"] *= 1e6
    first = surgery.step(model.losses(5), optimizer, metric="optimizer")["a+b+c"]
    second = others[2].step(others[0].losses(5), others[1], metric="optimizer")["a+b+c"]
    assert np.allclose(first.weights, second.weights, rtol=1e-9)
    assert np.allclose(first.solved_gram, second.solved_gram, rtol=1e-9)


def test_what_has_no_learning_rate_does_not_count_in_the_products():
    def make(parameters):
        one, *others = parameters
        return torch.optim.SGD([{"params": others}, {"params": [one], "lr": 0.0}], lr=0.05)

    model, optimizer, surgery = trained("mgda", 2, make=make)
    still, *moving = model.trunk.parameters()
    losses = model.losses(2)
    rows = gradients(model, losses, moving)
    group = surgery.step(losses, optimizer, metric="optimizer")["a+b+c"]
    assert group.solved_in == "identity"
    assert np.allclose(group.solved_gram, rows @ rows.T, rtol=1e-9)
    assert np.allclose(group.weights, gs.get_strategy("mgda").weights(rows @ rows.T), atol=1e-7)
    assert still.grad.abs().sum() > 0  # of all gradients the direction is made


def test_learning_rates_of_several_groups_are_a_metric_before_the_first_step():
    def make(parameters):
        one, *others = parameters
        return torch.optim.SGD([{"params": others}, {"params": [one], "lr": 1.0}], lr=0.01)

    model, optimizer, surgery = trained("mgda", 0, make=make)
    trunk, losses = list(model.trunk.parameters()), model.losses(0)
    rows = gradients(model, losses, trunk)
    rates = np.concatenate([np.full(p.numel(), 1.0 if p is trunk[0] else 0.01) for p in trunk])
    rates /= np.exp(np.log(rates).mean())
    group = surgery.step(losses, optimizer, metric="optimizer")["a+b+c"]
    assert np.allclose(group.solved_gram, rows * rates @ rows.T, rtol=1e-9)


def test_where_nothing_moves_the_metric_is_euclidean():
    make = lambda p: torch.optim.Adam(p, lr=0.0)  # noqa: E731
    model, optimizer, surgery = trained("mgda", 2, make=make)
    group = surgery.step(model.losses(2), optimizer, metric="optimizer")["a+b+c"]
    assert group.solved_in == "identity"
    assert np.array_equal(group.solved_gram, group.gram)


def test_a_state_with_nan_is_an_error_before_anything_changes():
    model, optimizer, surgery = trained("mgda", 2)
    optimizer.state[model.trunk[0].weight]["exp_avg_sq"][0, 0] = torch.nan
    before = flat(model.parameters()), copy.deepcopy(surgery.state_dict())
    with pytest.raises(gs.NonFiniteError, match=r"state for group 'a\+b\+c' has NaN"):
        surgery.step(model.losses(2), optimizer, metric="optimizer")
    assert np.array_equal(flat(model.parameters()), before[0])
    assert all(p.grad is None for p in model.parameters())
    assert str(surgery.state_dict()) == str(before[1])


def test_the_record_says_where_it_was_solved():
    model, optimizer, surgery = trained("upgrad", 3)
    record = surgery.step(model.losses(3), optimizer, metric="optimizer")
    assert "solved in the metric 'adam'" in str(record)
    assert record["a"].solved_in is None  # no strategy decides on one loss
    assert surgery.backward(model.losses(4))["a+b+c"].solved_in is None

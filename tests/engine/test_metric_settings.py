"""metric="optimizer" beside other inputs and settings: what it is there, and what it is not for."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.engine.test_metric_optimizer import adam_by_hand, direction, trained
from tests.engine.test_optimizer_step import Net, flat, gradients
from tests.engine.test_optimizer_step_edges import same, state_of


def stepped(model, optimizer, surgery, step, **settings):
    """The losses' rows at the trunk, P by hand from before the step, and the group's record."""
    trunk, losses = list(model.trunk.parameters()), model.losses(step)
    rows, scale = gradients(model, losses, trunk), adam_by_hand(optimizer, trunk, 10.0)
    record = surgery.step(losses, optimizer, metric="optimizer", **settings)
    return trunk, rows, scale, record["a+b+c"]


def cut(parameters):
    """Where each tensor is in a row."""
    ends = np.cumsum([0, *(p.numel() for p in parameters)])
    return [slice(a, b) for a, b in pairwise(ends)]


@pytest.fixture
def rule(temporary):
    """Strategies of rows, of Gram matrices by tensor, and one that leaves an objective out."""

    @gs.strategy("test-unit", paper="a test", scale="own")
    def unit(rows):
        return (rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)).sum(0)

    @gs.strategy("test-blocks", paper="a test", scale="own")
    def blocks(block_grams):
        return 1 / np.sqrt(np.einsum("kii->ki", block_grams))

    @gs.strategy("test-others", paper="a test", scale="own")
    def others(gram):
        return np.array([0.0, *1 / np.sqrt(np.diagonal(gram)[1:])])


@pytest.mark.usefixtures("rule")
def test_rows_are_in_the_metric_and_their_direction_is_brought_back():
    model, optimizer, surgery = trained("test-unit", 6)
    trunk, rows, scale, group = stepped(model, optimizer, surgery, 6)
    scaled = rows * np.sqrt(scale)
    expected = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).sum(0) / np.sqrt(scale)
    assert np.allclose(direction(trunk), expected, rtol=1e-5, atol=1e-7)
    assert np.allclose(group.solved_gram, scaled @ scaled.T, rtol=1e-6)


def test_signs_of_coordinates_are_the_same_in_every_metric():
    """Strategies that decide coordinate by coordinate are as without it, up to rounding."""
    model, optimizer, surgery = trained("trimmed-mean", 4)
    twin = copy.deepcopy((model, optimizer, surgery))
    surgery.step(model.losses(4), optimizer, metric="optimizer")
    twin[2].step(twin[0].losses(4), twin[1])
    own, other = (direction(list(m.trunk.parameters())) for m in (model, twin[0]))
    assert np.allclose(own, other, rtol=1e-6, atol=1e-12)


@pytest.mark.usefixtures("rule")
def test_grams_of_blocks_are_in_the_metric():
    model, optimizer, surgery = trained("test-blocks", 6)
    trunk, rows, scale, group = stepped(model, optimizer, surgery, 6)
    for own, row in zip(cut(trunk), group.weights, strict=True):
        sizes = np.sqrt(rows[:, own] ** 2 @ scale[own])
        assert np.allclose(row, 1 / sizes, rtol=1e-6)
    assert np.allclose(group.solved_gram, rows * scale @ rows.T, rtol=1e-6)


@pytest.mark.usefixtures("rule")
def test_protect_is_a_projection_in_the_metric_and_the_length_is_euclidean():
    conflicts = 0
    for step in range(3, 7):
        model, optimizer, surgery = trained("test-others", step, protect="a", length="sum")
        trunk, rows, scale, group = stepped(model, optimizer, surgery, step)
        d = direction(trunk)
        assert np.isclose(np.linalg.norm(d), np.linalg.norm(rows.sum(0)), rtol=1e-6)
        product = rows * scale @ rows.T
        usual = gs.get_strategy("test-others").weights(product)
        size = np.sqrt(product[0, 0] * (d**2 @ scale))
        assert rows[0] * scale @ d >= -1e-7 * size
        if product[0] @ usual < 0:
            usual[0] -= product[0] @ usual / product[0, 0]
            conflicts += 1
        usual *= np.linalg.norm(d) / np.linalg.norm(rows.T @ usual)
        assert np.allclose(group.weights, usual, rtol=1e-5, atol=1e-7)
    assert conflicts > 0


def test_decide_on_is_the_metric_of_what_decides():
    model = Net(dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    surgery = gs.Surgery("mgda", model, decide_on=model.trunk[2])
    for step in range(4):
        optimizer.zero_grad()
        losses, part = model.losses(step), list(model.trunk[2].parameters())
        rows = gradients(model, losses, part)
        scale = adam_by_hand(optimizer, part, 10.0) if step else np.ones(rows.shape[1])
        group = surgery.step(losses, optimizer, metric="optimizer")["a+b+c"]
        assert np.allclose(group.solved_gram, rows * scale @ rows.T, rtol=1e-6)


def test_weights_of_the_metric_are_used_again():
    model, optimizer, surgery = trained("mgda", 4, every=2)
    first = surgery.step(model.losses(4), optimizer, metric="optimizer")["a+b+c"]
    again = surgery.step(model.losses(5), optimizer, metric="optimizer")["a+b+c"]
    assert (first.replayed, first.solved_in) == (False, "adam")
    assert (again.replayed, again.solved_in) == (True, None)
    assert np.array_equal(first.weights, again.weights)


@pytest.mark.parametrize("guard", ["off", "report", "correct"])
def test_gathered_gradients_and_scaled_ones_are_solved_alike(guard):
    model, optimizer, surgery = trained("nash-mtl", 4)
    gathered, scaled = (copy.deepcopy((model, optimizer, surgery)) for _ in range(2))
    step = {"metric": "optimizer", "guard": guard}
    first = surgery.step(model.losses(4), optimizer, **step)["a+b+c"]
    gathered[2].accumulate(gathered[0].losses(4))
    second = gathered[2].step(None, gathered[1], **step)["a+b+c"]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    third = scaled[2].step(scaled[0].losses(4), scaled[1], scaler=scaler, **step)["a+b+c"]
    for other, own in ((second, gathered[0]), (third, scaled[0])):
        assert np.allclose(other.weights, first.weights, rtol=1e-9)
        assert np.allclose(other.solved_gram, first.solved_gram, rtol=1e-9)
        assert np.allclose(flat(own.parameters()), flat(model.parameters()), rtol=1e-9)


def test_layers_that_are_tapped_are_in_the_metric():
    model, optimizer, surgery = trained("mgda", 4, method="taps")
    _, rows, scale, group = stepped(model, optimizer, surgery, 4)
    assert np.allclose(group.solved_gram, rows * scale @ rows.T, rtol=1e-6)


def test_an_objective_of_zero_is_absent_in_the_metric_too():
    model, optimizer, surgery = trained("mgda", 4, zero="absent")
    losses, trunk = model.losses(4), list(model.trunk.parameters())
    losses["b"] = 0.0 * losses["b"]
    rows, scale = gradients(model, losses, trunk)[[0, 2]], adam_by_hand(optimizer, trunk, 10.0)
    group = surgery.step(losses, optimizer, metric="optimizer")["a+b+c"]
    assert group.absent == ("b",)
    assert np.allclose(group.solved_gram, rows * scale @ rows.T, rtol=1e-6)
    assert np.allclose(group.weights, gs.get_strategy("mgda").weights(group.solved_gram))


@pytest.mark.usefixtures("temporary")
def test_cross_products_of_batches_are_in_the_metric():
    seen = []

    @gs.strategy("test-cross", paper="a test", scale="own")
    def look(cross):
        seen.append(cross)
        return np.ones(cross.shape[1:3])

    model, optimizer = Net(dtype=torch.float64), None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    surgery, trunk = gs.Surgery("test-cross", model), list(model.trunk.parameters())
    for step in range(3):
        optimizer.zero_grad()
        batches = [model.losses(2 * step), model.losses(2 * step + 1)]
        first, second = (gradients(model, losses, trunk) for losses in batches)
        scale = adam_by_hand(optimizer, trunk, 10.0) if step else np.ones(first.shape[1])
        group = surgery.step(batches, optimizer, metric="optimizer")["a+b+c"]
        assert np.allclose(seen[-1][0, 1], first * scale @ second.T, rtol=1e-6, atol=1e-9)
        mean = (first + second) / 2
        assert np.allclose(group.solved_gram, mean * scale @ mean.T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bfloat16])
def test_complex_and_narrow_parameters_have_a_metric_of_real_numbers(dtype):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4, dtype=dtype))
    optimizer, surgery = torch.optim.Adam([weight], lr=0.01), gs.Surgery("mgda", [weight])
    real = torch.view_as_real if dtype.is_complex else (lambda tensor: tensor)
    for step in range(3):
        optimizer.zero_grad()
        z = weight @ torch.randn(4, dtype=dtype)
        losses = {"a": (z - 1).abs().pow(2).sum(), "b": (z + 2).abs().pow(2).sum()}
        found = [torch.autograd.grad(x, weight, retain_graph=True)[0] for x in losses.values()]
        rows = torch.stack([real(g).reshape(-1).double() for g in found])
        scale = torch.ones(rows.shape[1]).double()
        if step:
            v = real(optimizer.state[weight]["exp_avg_sq"]).reshape(-1).double()
            scale = 1 / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            scale /= scale.log().mean().exp()
        (group,) = surgery.step(losses, optimizer, metric="optimizer", bound=1e9).values()
        assert np.allclose(group.solved_gram, rows * scale @ rows.T, rtol=1e-5)


REFUSED = {
    "other": ("mgda", {}, {"metric": "adam"}, "unknown metric 'adam'. Known: euclidean, optimizer"),
    "none": ("mgda", {}, {"metric": None}, "unknown metric 'None'"),
    "sum": ("sum", {}, {}, "'sum' does not decide on gradients"),
    "losses": ("uw", {}, {}, "'uw' does not decide on gradients"),
    "kept": ("db-mtl", {}, {}, "'db-mtl' takes `rows` and remembers"),
    "low": ("mgda", {"memory": "low"}, {}, "memory='low'"),
    "features": ("mgda", {}, {"features": ()}, "features="),
    "bound": ("mgda", {}, {"bound": float("inf")}, "bound: expected a finite number"),
    "still": ("graddrop", {}, {}, "does not move all coordinates"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_solved_in_it_is_an_error_that_changes_nothing(case):
    strategy, settings, given, said = REFUSED[case]
    model = Net(dtype=torch.float64)
    held = model.trunk[2].parameters() if case == "still" else model.parameters()
    optimizer = torch.optim.SGD(held, lr=0.05, momentum=0.9)
    surgery = gs.Surgery(strategy, model, **settings)
    surgery.step(model.losses(0), optimizer)
    before = state_of(model, optimizer, surgery)
    with pytest.raises(gs.InputError, match=said):
        surgery.step(model.losses(1), optimizer, **{"metric": "optimizer", **given})
    same(state_of(model, optimizer, surgery), before)
    surgery.step(model.losses(1), optimizer)

"""The tasks with a differential equation: reference solutions, points, losses, and learning."""

import itertools
import math

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_task
from gradsurgery.compare.loop import Loop, endless, seeded
from gradsurgery.tasks import get_task, pinn_burgers, pinn_poisson
from gradsurgery.tasks.pinn import slopes
from tests.support.finite_volumes import burgers as finite_volumes
from tests.support.tasks import batch_of, loaded

TASKS = ("pinn-poisson", "pinn-burgers")


class Exact(torch.nn.Module):
    """The solution in place of a network."""

    def __init__(self, solution):
        super().__init__()
        self.forward = solution


@pytest.mark.quick
def test_poissons_solution_has_no_residual_and_the_values_of_the_sides():
    batch = tuple(points.double() for points in batch_of(loaded("pinn-poisson")))
    losses = pinn_poisson._losses(Exact(pinn_poisson.solution), batch)
    assert list(losses) == ["residual", "left", "right", "bottom", "top"]
    assert all(loss < 1e-20 for loss in losses.values())
    x = torch.rand(50, 2, dtype=torch.float64)
    by_hand = np.sin(2 * np.pi * x[:, 0].numpy()) * np.cos(np.pi * x[:, 1].numpy())
    assert np.allclose(pinn_poisson.solution(x), by_hand)
    h = 1e-3  # -Δu by differences
    around = [torch.tensor(step) for step in ((h, 0.0), (-h, 0.0), (0.0, h), (0.0, -h))]
    u = pinn_poisson.solution
    differences = (4 * u(x) - sum(u(x + step) for step in around)) / h**2
    assert torch.allclose(differences, pinn_poisson.source(x), atol=2e-3)


@pytest.mark.quick
def test_burgers_reference_agrees_with_the_trapezoidal_rule():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(pinn_burgers.LOW), torch.tensor(pinn_burgers.HIGH)
    points = low + (high - low) * torch.rand(40, 2, generator=generator, dtype=torch.float64)
    x, t = points.numpy().T[:, :, None]
    eta = np.linspace(-3, 3, 6001)  # of Cole and Hopf's integrals, untransformed
    y = x - eta
    power = -(eta**2) / (4 * pinn_burgers.NU * t) - np.cos(np.pi * y) / (
        2 * np.pi * pinn_burgers.NU
    )
    weights = np.exp(power - power.max(1, keepdims=True))
    expected = -(weights * np.sin(np.pi * y)).sum(1) / weights.sum(1)
    assert np.abs(pinn_burgers.reference(points).numpy() - expected).max() < 1e-12


def test_burgers_reference_solves_the_equation_and_keeps_its_sides():
    x = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
    points = torch.cartesian_prod(x, torch.tensor([0.1, 0.6], dtype=torch.float64))
    h = 1e-4
    u = lambda a, b: pinn_burgers.reference(points + torch.tensor([a, b]))  # noqa: E731
    u_t = (u(0.0, h) - u(0.0, -h)) / (2 * h)
    u_x = (u(h, 0.0) - u(-h, 0.0)) / (2 * h)
    u_xx = (u(h, 0.0) - 2 * u(0.0, 0.0) + u(-h, 0.0)) / h**2
    assert (u_t + u(0.0, 0.0) * u_x - pinn_burgers.NU * u_xx).abs().max() < 5e-3
    sides = torch.tensor([[-1.0, 0.5], [1.0, 0.5]], dtype=torch.float64)
    assert pinn_burgers.reference(sides).abs().max() < 1e-12
    start = torch.stack([x, torch.full_like(x, 1e-7)], 1)
    assert torch.allclose(pinn_burgers.reference(start), -torch.sin(math.pi * x), atol=1e-5)


@pytest.mark.exhaustive
def test_burgers_reference_agrees_with_finite_volumes():
    """1,024 cells at fourth order; at t = 0.5 the front is narrower than four cells."""
    edges, averages = finite_volumes(1024, pinn_burgers.NU, times=(0.1, 0.3, 0.5))
    for time, bound in ((0.1, 1e-8), (0.3, 2e-6), (0.5, 1e-3)):
        at = [
            pinn_burgers.reference(torch.from_numpy(np.stack([x, np.full_like(x, time)], 1)))
            for x in (edges[:-1], (edges[1:] + edges[:-1]) / 2, edges[1:])
        ]
        simpson = (at[0] + 4 * at[1] + at[2]).numpy() / 6
        assert np.abs(averages[time] - simpson).max() < bound


@pytest.mark.quick
@pytest.mark.parametrize("name", TASKS)
def test_points_follow_from_the_seed_and_the_grids_do_not(name):
    problem, again = loaded(name), get_task(name).problem(None, 0)
    other = loaded(name, 1)
    first, second = (list(itertools.islice(p.batches(), 2)) for p in (problem, again))
    for a, b in zip(first, second, strict=True):
        assert all(map(torch.equal, a, b))
    assert not torch.equal(first[0][0], first[1][0])  # fresh in each step
    assert not torch.equal(first[0][0], batch_of(loaded(name, 1))[0])
    torch.manual_seed(0)
    model = problem.model()
    with torch.no_grad():
        for split in ("validation", "test"):
            assert problem.evaluate(model, split) == other.evaluate(model, split)


def grids(name):
    """The points at which a task's solution is compared, per split."""
    seen = []

    class Asked(torch.nn.Module):
        def forward(self, points):
            seen.append(points)
            return torch.zeros(len(points))

    problem = loaded(name)
    for split in ("validation", "test"):
        figures = problem.evaluate(Asked(), split)
        assert figures == pytest.approx(dict.fromkeys(figures, 100.0))  # u = 0 is the guess
    return seen[0], seen[2]


@pytest.mark.quick
@pytest.mark.parametrize("name", TASKS)
def test_validation_and_test_have_no_point_in_common(name):
    validation, test = grids(name)
    assert torch.cdist(validation, test).min() > 1e-4
    assert len(test) >= 2000


@pytest.mark.quick
def test_points_lie_where_their_losses_are():
    inside, edges = batch_of(loaded("pinn-poisson"))
    assert ((inside >= 0) & (inside < 1)).all()
    x, y = edges.unflatten(0, (4, -1)).unbind(2)
    fixed = (x[0], 0), (x[1], 1), (y[2], 0), (y[3], 1)
    assert all((coordinate == value).all() for coordinate, value in fixed)
    assert x[2:].std() > 0.2
    assert y[:2].std() > 0.2
    inside, start, sides = batch_of(loaded("pinn-burgers"))
    assert ((inside[:, 0].abs() <= 1) & (inside[:, 1] >= 0) & (inside[:, 1] < 1)).all()
    assert (start[:, 1] == 0).all()
    assert sorted(set(sides[:, 0].tolist())) == [-1.0, 1.0]


@pytest.mark.quick
@pytest.mark.parametrize("name", TASKS)
def test_no_figure_is_one_that_a_loss_trained_alone_has_at_best(name):
    """A gain over such a run, Δm, would be relative to an error that is nearly zero."""
    problem = loaded(name)
    single = {losses[0] for losses in problem.alone.values() if len(losses) == 1}
    assert single == {"residual"}
    assert not single & set(problem.names)
    losses = problem.losses(problem.model(), batch_of(problem))
    assert {name for subset in problem.alone.values() for name in subset} == set(losses)


@pytest.mark.quick
def test_slopes_are_of_each_point_its_own():
    points = torch.rand(5, 2, requires_grad=True)
    found = slopes(points[:, 0] ** 2 * points[:, 1], points)
    x, y = points.detach().unbind(1)
    assert torch.allclose(found, torch.stack([2 * x * y, x**2], 1))
    assert found.requires_grad


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TASKS)
def test_the_check_finds_nothing(name):
    plan = Plan.of([name], ["sum"], [0, 1])
    found = check_task(plan, plan.tasks[0])
    assert found.wrong == found.notes == []
    losses = loaded(name).losses(loaded(name).model(), batch_of(loaded(name)))
    assert "+".join(sorted(losses)) in found.groups


def taken(name, strategy, lr, steps):
    """The loop after so many steps at a constant rate, its first weights, and the last record."""
    problem = loaded(name)
    with seeded(0):
        loop = Loop(problem, strategy, seed=0, lr=lr, steps=1000)
        draw = endless(problem)
        before = [p.detach().clone() for p in loop.model.parameters()]
        for _ in range(steps):
            record = loop.step(draw)
    return loop, before, record


@pytest.mark.parametrize(("name", "strategy"), [(TASKS[0], "lr-annealing"), (TASKS[1], "sum")])
def test_the_error_falls_in_few_steps(name, strategy):
    loop, _, _ = taken(name, gs.get_strategy(strategy), lr=0.01, steps=60)
    with torch.no_grad():
        assert loaded(name).evaluate(loop.model, "validation")["solution"] < 80


OPTIONS = {
    "a-gem": {"objective": "residual"},
    "adaptive-weight": {"adversarial": "residual"},
    "dgl": {"joint": "residual"},
}
CANNOT = {  # these tasks have no modalities, and pinn-burgers has three losses
    (name, strategy): message
    for name in TASKS
    for strategy, message in {
        "agm": "takes a measure of each modality",
        "ogm-ge": "takes a measure of each modality",
        "krum": r"needs byzantine \+ 3 = 4 objectives or more; got 3",
    }.items()
    if (name, strategy) != ("pinn-poisson", "krum")
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("strategy", gs.strategy_names())
def test_every_strategy_takes_three_steps(name, strategy):
    """The losses take derivatives of derivatives; those that cannot run say why."""
    chosen = gs.get_strategy(strategy, **OPTIONS.get(strategy, {}))
    if (name, strategy) in CANNOT:
        with pytest.raises(gs.InputError, match=CANNOT[name, strategy]):
            taken(name, chosen, lr=1e-3, steps=1)
        return
    loop, before, record = taken(name, chosen, lr=1e-3, steps=3)
    after = list(loop.model.parameters())
    assert all(map(math.isfinite, record.losses.values()))
    assert all(p.isfinite().all() for p in after)
    assert not all(map(torch.equal, before, after))

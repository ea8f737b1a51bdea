"""Surgery.step: the optimizer's step is measured as it is, and corrected as the problem says."""

import copy

import cvxpy
import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.metric import metric_of

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


class Net(nn.Module):
    """A trunk of two layers and three heads."""

    def __init__(self, seed=0, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.heads = nn.ModuleList([nn.Linear(3, 1) for _ in range(3)])
        self.to(dtype)

    def losses(self, step, objectives="abc"):
        """Three regressions of noise on few examples, which soon are in each other's way."""
        generator = torch.Generator().manual_seed(step)
        dtype = next(self.parameters()).dtype
        x = torch.randn(6, 4, generator=generator, dtype=torch.float64).to(dtype)
        y = torch.randn(3, 6, 1, generator=generator, dtype=torch.float64).to(dtype)
        z = self.trunk(x)
        return {
            o: (self.heads["abc".index(o)](z) - y["abc".index(o)]).pow(2).mean() for o in objectives
        }


def gradients(model, losses, parameters):
    """J [n, d] in float64 by autograd."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        flat = [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
        ]
        rows.append(torch.cat([g.reshape(-1) for g in flat]).double())
    return torch.stack(rows).numpy()


def flat(parameters):
    return torch.cat([p.detach().reshape(-1) for p in parameters]).double().numpy()


@pytest.mark.parametrize("strategy", ["sum", "mgda", "pcgrad"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_report_is_backward_and_the_optimizers_step_bit_for_bit(name, strategy):
    one, other = Net(), Net()
    first, second = (OPTIMIZERS[name](m.parameters()) for m in (one, other))
    reported, plain = gs.Surgery(strategy, one), gs.Surgery(strategy, other)
    for step in range(8):
        first.zero_grad()
        second.zero_grad()
        reported.step(one.losses(step), first)
        plain.backward(other.losses(step))
        second.step()
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
            assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_change_is_the_product_of_each_gradient_with_the_step_made(name):
    model = Net()
    optimizer, surgery = OPTIMIZERS[name](model.parameters()), gs.Surgery("upgrad", model)
    everything, trunk = list(model.parameters()), list(model.trunk.parameters())
    for step in range(6):
        optimizer.zero_grad()
        losses = model.losses(step)
        whole, shared = gradients(model, losses, everything), gradients(model, losses, trunk)
        before = flat(everything), flat(trunk)
        record = surgery.step(losses, optimizer, guard="correct")
        moved = flat(everything) - before[0], flat(trunk) - before[1]
        size = np.linalg.norm(whole, axis=1) * np.linalg.norm(moved[0])
        assert (
            np.abs(np.array(list(record.change.values())) - whole @ moved[0]).max()
            < 1e-6 * size.max()
        )
        group = record["a+b+c"]
        assert np.allclose(group.change, shared @ moved[1], rtol=0, atol=1e-6 * size.max())
        tolerance = 2e-6 * np.linalg.norm(shared, axis=1) * np.linalg.norm(moved[1])
        assert (shared @ moved[1] <= np.maximum(tolerance, 1e-7)).all()
        assert group.risen == ()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_corrected_step_is_the_nearest_in_the_optimizers_metric(name):
    """In float64 against cvxpy, on every step that was corrected in it."""
    model = Net(dtype=torch.float64)
    optimizer, surgery = OPTIMIZERS[name](model.parameters()), gs.Surgery("sum", model)
    trunk, corrected = list(model.trunk.parameters()), 0
    for step in range(60):
        optimizer.zero_grad()
        losses = model.losses(step)
        rows, before = gradients(model, losses, trunk), flat(trunk)
        twin = copy.deepcopy((model, optimizer))
        gs.backward(twin[0].losses(step), twin[0], "sum")
        twin[1].step()
        wanted = flat(twin[0].trunk.parameters()) - before
        group = surgery.step(losses, optimizer, guard="correct")["a+b+c"]
        found = flat(trunk) - before
        if group.corrected is None:
            assert np.allclose(found, wanted, rtol=0, atol=1e-12)
            continue
        metric = metric_of(optimizer, trunk)
        scales = [torch.as_tensor(metric.scales[id(p)]).double().expand(p.shape) for p in trunk]
        diagonal = torch.cat([scale.reshape(-1) for scale in scales]).numpy()
        if group.metric.startswith("identity"):
            diagonal = np.ones_like(diagonal)
        corrected += 1
        assert np.isclose(
            group.corrected, np.linalg.norm(found) / np.linalg.norm(wanted), rtol=1e-6
        )
        best = nearest(rows, wanted, diagonal)
        size = np.sqrt(wanted**2 @ (1 / diagonal))
        assert np.sqrt((found - best) ** 2 @ (1 / diagonal)) < 1e-5 * size
        assert (rows @ found <= 1e-11 * np.linalg.norm(rows, axis=1)).all()
    # plain gradient descent on the sum may raise an objective too
    assert corrected > 3


def nearest(rows, wanted, diagonal):
    """argmin ½(u' − u)ᵀP⁻¹(u' − u) s.t. Ju' <= 0."""
    root = np.sqrt(diagonal)
    scaled = rows * root
    scaled = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    size = np.linalg.norm(wanted / root)
    z = cvxpy.Variable(len(wanted))
    problem = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(z - wanted / root / size)), [scaled @ z <= 0]
    )
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return z.value * root * size

"""Surgery.step where it once measured by the wrong rounding, or failed after the step."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs


def built(optimizer, start=0.0, size=5, **given):
    weight = nn.Parameter(torch.full((size,), start))
    return weight, optimizer([weight], **{"lr": 0.02, **given}), gs.Surgery("sum", [weight])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_step_corrected_to_nothing_from_zeros_is_no_step(optimizer):
    """What rounding may add is that of the corrected parameters, far below that of the others."""
    weight, optimizer, surgery = built(optimizer)
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    record = surgery.step(list(rows @ weight), optimizer, guard="correct")
    (group,) = record.values()
    step, rows = weight.detach().double(), rows.double()
    assert (rows @ step <= 1e-6 * rows.norm(dim=1) * step.norm()).all()
    assert group.corrected == 0
    assert group.risen == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bound": float("inf")}, "bound: expected a finite number"),
        ({"guard_on": None}, "guard_on: expected names"),
        ({"guard_on": 3}, "guard_on: expected names"),
    ],
)
def test_settings_that_fail_later_are_errors_before_the_step(given, message):
    weight, optimizer, surgery = built(torch.optim.SGD)
    with pytest.raises(gs.InputError, match=message):
        surgery.step([weight.sum(), -2 * weight[0]], optimizer, guard="correct", **given)
    assert weight.grad is None


@pytest.mark.parametrize("number", [np.float32(2), np.int64(2)])
def test_a_bound_of_numpy_is_a_number(number):
    weight, optimizer, surgery = built(torch.optim.SGD)
    surgery.step([weight.sum(), -2 * weight[0]], optimizer, guard="correct", bound=number)
    assert weight.grad is not None


def test_a_negative_learning_rate_ascends():
    weight, optimizer, surgery = built(torch.optim.SGD, start=1.0)
    optimizer.param_groups[0]["lr"] = -0.1
    with pytest.raises(gs.InputError, match="SGD has lr=-0.1, and guard='correct' would undo"):
        surgery.step([weight.sum(), weight[0]], optimizer, guard="correct")
    assert weight.grad is None
    (group,) = surgery.step([weight.sum(), weight[0]], optimizer).values()
    assert group.objectives == ("0", "1")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("guard", ["report", "correct"])
@pytest.mark.parametrize("rate", [0.1, 1e30, float("inf")])
def test_a_zero_gradient_beside_a_step_out_of_range_is_no_warning(guard, rate):
    """0 times infinity: ‖u‖² is not in the range of float32, or u is not finite."""
    weight, optimizer, surgery = built(torch.optim.SGD, size=3)
    surgery = gs.Surgery("pcgrad", [weight])
    optimizer.param_groups[0]["lr"] = rate
    rows = torch.tensor([[0.0, 0.0, 0.0], [1e20, 2e20, 3e20], [-3e20, 1e20, -5e19]])
    losses = [(row * (weight - weight.detach())).sum() for row in rows]
    (group,) = surgery.step(losses, optimizer, guard=guard).values()
    assert group.change[0] == 0 or rate > 1
    assert 0 not in [group.objectives.index(name) for name in group.risen]


def test_the_rounding_of_several_batches_is_compared_with_their_mean():
    """One batch's product is far above what rounding may add, another's far below."""
    weight, optimizer, _ = built(torch.optim.SGD, start=1000.0, size=10_000, lr=0.1)
    surgery = gs.Surgery("modo", [weight])
    slopes = 1.0, -0.98, 0.0
    batches = [{"a": slope * weight[0], "b": -weight[0]} for slope in slopes]
    (group,) = surgery.step(batches, optimizer).values()
    assert weight[0] > 1000.01
    assert group.change[0] > 0
    assert group.risen == group.objectives[:1]

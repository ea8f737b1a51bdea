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

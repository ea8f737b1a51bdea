"""How the metric of a step is bounded: the median, moments of zero, learning rates of zero."""

import pytest
import torch
from torch import nn

from gradsurgery.engine.metric import metric_of
from gradsurgery.errors import InputError
from tests.support.optimizers import gradients, parameters, stepped

ADAM = torch.optim.Adam


def test_the_bound_is_ten_medians_also_where_no_gradient_has_been():
    params = [nn.Parameter(torch.ones(101)), nn.Parameter(torch.ones(4))]
    optimizer = torch.optim.Adam(params, lr=0.1, betas=(0.0, 0.9))
    sizes = torch.full((101,), 2.0)
    sizes[:3] = torch.tensor([0.0, 1e-6, 0.25])
    params[0].grad = sizes
    optimizer.step()
    scale = metric_of(optimizer, params).scales[id(params[0])]
    assert scale[3:].tolist() == pytest.approx([0.1 / 2] * 98)
    assert scale[:3].tolist() == pytest.approx([0.5, 0.5, 0.4])
    # without state: the median, of which no memory is made
    other = metric_of(optimizer, params).scales[id(params[1])]
    assert other.tolist() == pytest.approx([0.05] * 4)
    assert other.untyped_storage().nbytes() <= 8
    assert metric_of(optimizer, params, bound=2).scales[id(params[0])].max() == pytest.approx(0.1)
    # of these parameters alone: none of them has had a gradient
    assert metric_of(optimizer, params[1:]).scales == {id(params[1]): 0.1}


def test_a_learning_rate_of_zero_and_what_is_not_held_do_not_move():
    params = parameters(torch.float32)
    optimizer = torch.optim.Adam([{"params": params[:1]}, {"params": params[1:2], "lr": 0.0}])
    stepped(optimizer, params, gradients(0, torch.float32))
    metric = metric_of(optimizer, params)
    assert [metric.scales[id(p)] for p in params[1:]] == [0.0, 0.0]
    assert metric.names == {id(params[0]): "adam", id(params[1]): "adam"}
    assert metric.scales[id(params[0])].dtype == torch.float32
    assert metric_of(optimizer, params[1:]).names == {id(params[1]): "adam"}


@pytest.mark.parametrize("kind", [ADAM, torch.optim.Adamax], ids=["adam", "adamax"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_p_is_in_float32_at_least_and_the_bound_the_same_in_all_dtypes(kind, dtype):
    params = parameters(dtype)
    optimizer = kind(params, lr=1e-2)
    with torch.no_grad():
        grads = [torch.ones_like(p) for p in params]
        grads[0][0] = 0
    stepped(optimizer, params, grads)
    metric = metric_of(optimizer, params)
    first = metric.scales[id(params[0])]
    assert first.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (first[0] / first[1]).tolist() == pytest.approx(4 * [10.0], rel=1e-5)


def test_the_median_of_many_coordinates_is_of_a_sample_that_columns_do_not_alias():
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.zeros(4096, 256)), nn.Parameter(torch.zeros(700, 513))]
    optimizer = torch.optim.RMSprop(params, lr=1.0)
    grads = [torch.rand(p.shape, generator=generator) + 0.5 for p in params]
    for g in grads:
        g[:, 0] = 100.0  # every 16th coordinate of the first would be of these columns alone
    stepped(optimizer, params, grads)
    whole = torch.cat([10 / (g.flatten() + 1e-7) for g in grads])
    grads[0][:, 0] = 0
    largest = metric_of(optimizer, params, bound=1.0).scales[id(params[0])].max()
    assert largest.item() == pytest.approx(whole.median().item(), rel=0.01)
    again = metric_of(optimizer, params, bound=1.0).scales[id(params[0])].max()
    assert largest.item() == again.item()


def test_moments_that_are_zero_or_overflowed_leave_a_metric():
    params = [nn.Parameter(torch.zeros(6))]
    optimizer = ADAM(params, lr=0.5, eps=0.0)
    stepped(optimizer, params, [torch.zeros(6)])
    assert metric_of(optimizer, params).scales[id(params[0])].tolist() == 6 * [5.0]
    moment = optimizer.state[params[0]]["exp_avg_sq"]
    moment.copy_(torch.tensor([torch.inf, torch.inf, torch.inf, torch.inf, 1e-3, 0.0]))
    scale = metric_of(optimizer, params).scales[id(params[0])]
    assert scale[:4].tolist() == 4 * [0.0]
    assert scale[5].item() == pytest.approx(10 * scale[4].item())
    moment.fill_(torch.inf)
    assert metric_of(optimizer, params).scales[id(params[0])].tolist() == 6 * [0.0]


@pytest.mark.parametrize("bound", [0.5, float("nan"), float("inf")])
def test_a_bound_below_one_is_an_error(bound):
    params = parameters()
    with pytest.raises(InputError, match="bound: expected a finite number of at least 1"):
        metric_of(ADAM(params), params, bound=bound)

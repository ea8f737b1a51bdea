"""The metric of an optimizer's step, against what a step really does to a change of gradient."""

import copy

import pytest
import torch
from torch import nn

from gradsurgery.engine.metric import metric_of

SHAPES = ((3, 4), (5,), (2, 1, 3))
ADAM = torch.optim.Adam
# the optimizer, its options, and the second moments in its state, held fixed for the derivative
CASES = {
    "adam": (ADAM, {}),
    "adam-foreach": (ADAM, {"foreach": True}),
    "adam-fused": (ADAM, {"fused": True}),
    "adam-amsgrad": (ADAM, {"amsgrad": True, "foreach": False}),
    "adam-amsgrad-fused": (ADAM, {"amsgrad": True, "fused": True}),
    "adam-maximize": (ADAM, {"maximize": True, "weight_decay": 0.1}),
    "adam-tensor": (ADAM, {"lr": torch.tensor(1e-2), "foreach": False, "eps": 1e-3}),
    "adam-decoupled": (ADAM, {"betas": (0.5, 0.9)}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1, "betas": (0.0, 0.99)}),
    "adamw-fused": (torch.optim.AdamW, {"amsgrad": True, "fused": True, "maximize": True}),
    "nadam": (torch.optim.NAdam, {}),
    "nadam-foreach": (torch.optim.NAdam, {"foreach": True, "momentum_decay": 0.5}),
    "nadam-decoupled": (torch.optim.NAdam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    "radam": (torch.optim.RAdam, {"betas": (0.9, 0.9)}),
    "radam-foreach": (torch.optim.RAdam, {"foreach": True, "eps": 1e-2}),
    "adamax": (torch.optim.Adamax, {"betas": (0.8, 0.999)}),
    "adamax-foreach": (torch.optim.Adamax, {"foreach": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop-centered": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "rmsprop-foreach": (torch.optim.RMSprop, {"foreach": True, "momentum": 0.9, "eps": 1e-3}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0.1}),
    "adagrad-fused": (torch.optim.Adagrad, {"fused": True}),
    "adagrad-foreach": (torch.optim.Adagrad, {"initial_accumulator_value": 0.3, "foreach": True}),
    "adadelta": (torch.optim.Adadelta, {"eps": 1e-4}),
    "sgd": (torch.optim.SGD, {"weight_decay": 0.1}),
}


def parameters(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    return [nn.Parameter(1e-3 * tensor) for tensor in made]  # steps are read to many digits


def gradients(step, dtype=torch.float64):
    """Of sizes over six orders of magnitude, so that no two coordinates are alike."""
    generator = torch.Generator().manual_seed(100 + step)
    sizes = [
        10 ** (3 * torch.rand(shape, generator=torch.Generator().manual_seed(7)) - 2)
        for shape in SHAPES
    ]
    return [
        (torch.randn(size.shape, generator=generator, dtype=dtype) * size).to(dtype)
        for size in sizes
    ]


def held(optimizer, before, after, gradient, group):
    """The state from which a step with this gradient ends in the second moments of `after`."""
    made = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in before.items()}
    decay = group.get("alpha", group.get("rho", group.get("betas", (0, 0))[1]))
    for key in ("exp_avg_sq", "square_avg"):
        if key in made:
            made[key] = (after[key] - (1 - decay) * gradient**2) / decay
    if "grad_avg" in made:
        made["grad_avg"] = (after["grad_avg"] - (1 - decay) * gradient) / decay
    if "sum" in made:
        made["sum"] = after["sum"] - gradient**2
    if "exp_inf" in made:  # of the past alone: the gradients that are tried are smaller
        made["exp_inf"] = after["exp_inf"] / decay
    return made


SECOND = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "sum", "exp_inf")


def sensitivity(optimizer, params, grads):
    """|∂θ'/∂g| of the next step, where the second moments that it ends in are held fixed."""
    first, tensors = copy.deepcopy((optimizer, params))
    second, others = copy.deepcopy((optimizer, params))
    group = optimizer.param_groups[0]
    sign, decay = (-1 if group["maximize"] else 1), group.get("weight_decay", 0)
    decay = 0 if group.get("decoupled_weight_decay") else decay
    for p, g in zip(tensors, grads, strict=True):
        p.grad = g.clone()
    first.step()
    for own, p, q, g in zip(params, tensors, others, grads, strict=True):
        q.grad = 0.999 * g
        inside = sign * q.grad + decay * own.detach()
        second.state[q] = held(second, second.state[q], first.state[p], inside, group)
    second.step()
    for p, q in zip(tensors, others, strict=True):
        for key in set(SECOND) & first.state[p].keys():
            torch.testing.assert_close(first.state[p][key], second.state[q][key], rtol=1e-9, atol=0)
    return [
        ((p - q).detach() / (0.001 * g)).abs()
        for p, q, g in zip(tensors, others, grads, strict=True)
    ]


def stepped(optimizer, params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    optimizer.step()


def made(case, params):
    kind, options = CASES[case]
    return kind(params, **{"lr": 1e-2, **options})


@pytest.mark.parametrize("case", CASES)
def test_the_metric_is_what_the_step_does_to_a_change_of_the_gradient(case):
    params = parameters()
    optimizer = made(case, params)
    group = optimizer.param_groups[0]
    left_out = 1 - float(group["betas"][0]) if "betas" in group else 1.0
    stepped(optimizer, params, gradients(0))
    for step in range(1, 8):
        expected = sensitivity(optimizer, params, gradients(step))
        stepped(optimizer, params, gradients(step))
        metric = metric_of(optimizer, params, bound=1e30)
        for p, slope in zip(params, expected, strict=True):
            found = torch.as_tensor(metric.scales[id(p)], dtype=slope.dtype).expand(p.shape)
            ratio = found * left_out / slope
            if case == "adadelta":  # whose numerator is overwritten: between √ρ and √2
                assert ratio.min() >= 0.9**0.5 - 1e-6
                assert ratio.max() <= 2**0.5 + 1e-6
            else:
                assert (ratio - 1).abs().max() <= 1e-6, (step, ratio)


def values(metric, params):
    return torch.cat(
        [torch.as_tensor(metric.scales[id(p)]).expand(p.shape).flatten() for p in params]
    )


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

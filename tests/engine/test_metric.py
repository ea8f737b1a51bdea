"""The metric of an optimizer's step, against what a step really does to a change of gradient."""

import copy

import pytest
import torch
from torch import nn

from gradsurgery.engine.metric import metric_of
from tests.support.optimizers import gradients, parameters, stepped

ADAM = torch.optim.Adam
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


class Renamed(ADAM):
    """Adam with another way to add parameters."""

    def add_param_group(self, param_group):
        super().add_param_group(param_group)


class Scaled(ADAM):
    """A step of its own, with the same keys in its state."""

    def step(self, closure=None):
        return super().step(closure)


class OwnState(ADAM):
    """torch's step on a state that it fills in its own way."""

    def _init_group(self, group, *lists):
        return super()._init_group(group, *lists)


def name_after_a_step(optimizer, params):
    stepped(optimizer, params, gradients(0, params[0].dtype))
    names = metric_of(optimizer, params).names
    assert names.keys() == {id(p) for p in params}
    (name,) = set(names.values())
    return name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Renamed, "adam"),
        (Scaled, "identity for Scaled"),
        (OwnState, "identity for OwnState"),
        (torch.optim.AdamW, "adamw"),
        (torch.optim.SGD, "identity"),
        (torch.optim.Rprop, "identity for Rprop"),
        (torch.optim.Adafactor, "identity for Adafactor"),
    ],
)
def test_a_preconditioner_is_known_by_the_step_that_runs_and_by_no_key(kind, name):
    params = parameters()
    optimizer = kind(params, lr=1e-2)
    assert name_after_a_step(optimizer, params) == name
    if name.startswith("identity"):
        assert set(metric_of(optimizer, params).scales.values()) == {1e-2}


def test_a_step_that_a_scheduler_wraps_is_known():
    params = parameters()
    optimizer = ADAM(params, lr=1e-2)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert name_after_a_step(optimizer, params) == "adam"
    optimizer.step = lambda closure=None: None
    assert metric_of(optimizer, params).names[id(params[0])] == "identity for Adam"


@pytest.mark.exhaustive  # the compiler's import takes two seconds
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_step_that_is_compiled_is_known():
    params = parameters()
    optimizer = ADAM(params, lr=1e-2)
    stepped(optimizer, params, gradients(0))
    optimizer.step = torch.compile(optimizer.step)
    assert metric_of(optimizer, params).names[id(params[0])] == "adam"


def test_radam_is_the_identity_while_it_is_not_rectified():
    params = parameters()
    optimizer = torch.optim.RAdam(params, lr=1e-2)
    seen = []
    for step in range(8):
        stepped(optimizer, params, gradients(step))
        metric = metric_of(optimizer, params)
        seen.append(metric.names[id(params[0])])
        if seen[-1] == "identity":
            assert set(metric.scales.values()) == {1e-2 * (1 / (1 - 0.9 ** (step + 1)))}
    assert seen == 5 * ["identity"] + 3 * ["radam"]


def test_a_state_of_no_step_is_no_state():
    """As where a fused step under a GradScaler finds infinities, or Adagrad has made its sums."""
    params = parameters()
    optimizer = torch.optim.Adagrad(params, lr=1e-2, initial_accumulator_value=2.0)
    assert set(metric_of(optimizer, params).scales.values()) == {1e-2}
    assert set(metric_of(ADAM(params), params).scales.values()) == {1e-3}


def test_numbers_on_tensors_are_read_as_numbers():
    """As with `capturable`, which keeps the step counts on the parameters' device."""
    params, others = parameters(), parameters()
    plain = torch.optim.NAdam(params, lr=1e-2)
    tensors = torch.optim.NAdam(others, lr=1e-2)
    for step in range(3):
        stepped(plain, params, gradients(step))
        stepped(tensors, others, gradients(step))
    group = tensors.param_groups[0]
    group["lr"], group["betas"] = (
        torch.tensor([1e-2], dtype=torch.float64),
        tuple(torch.tensor([0.9, 0.999], dtype=torch.float64)),
    )
    for state in tensors.state.values():
        state["step"] = state["step"].double()
    for p, q in zip(params, others, strict=True):
        expected = metric_of(plain, params).scales[id(p)]
        torch.testing.assert_close(metric_of(tensors, others).scales[id(q)], expected)


@pytest.mark.parametrize("kind", [ADAM, torch.optim.RMSprop, torch.optim.Adagrad])
def test_complex_parameters_have_a_metric_of_both_parts(kind):
    pairs = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    real, whole = nn.Parameter(pairs.clone()), nn.Parameter(torch.view_as_complex(pairs.clone()))
    one, other = kind([real], lr=1e-2), kind([whole], lr=1e-2)
    for _ in range(2):
        stepped(one, [real], [grad])
        stepped(other, [whole], [torch.view_as_complex(grad)])
    expected = metric_of(one, [real]).scales[id(real)]
    torch.testing.assert_close(metric_of(other, [whole]).scales[id(whole)], expected)


def test_sparse_adam_in_the_rows_that_it_moves():
    table = nn.Parameter(torch.zeros(5, 3, dtype=torch.float64))
    optimizer = torch.optim.SparseAdam([table], lr=1e-2)
    rows = torch.tensor([0, 3])
    for step in range(1, 4):
        values = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        before = table.detach().clone()
        table.grad = torch.sparse_coo_tensor(
            rows[None], values, table.shape, check_invariants=True
        ).coalesce()
        optimizer.step()
        mean = optimizer.state[table]["exp_avg"][rows]  # what the step multiplied
        scale = metric_of(optimizer, [table], bound=1e30).scales[id(table)]
        torch.testing.assert_close(scale[rows] * mean, (before - table.detach())[rows])
        assert step == optimizer.state[table]["step"]

"""Which optimizers' steps can be guarded, within which wrappers, and what is said of the others."""

import types

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.accepted import check_optimizer
from gradsurgery.engine.metric import held_by, metric_of
from gradsurgery.errors import InputError
from tests.support.optimizers import gradients, parameters, stepped

ADAM = torch.optim.Adam


class Around:
    """As Fabric's wrapper is: no optimizer itself, what it wraps under a documented name."""

    def __init__(self, optimizer):
        self._optimizer = optimizer

    @property
    def optimizer(self):
        return self._optimizer

    @property
    def param_groups(self):
        return self._optimizer.param_groups

    def step(self, closure=None):
        return self._optimizer.step()


class Imitating(Around):
    """As Lightning's wrapper is: of the class of what it wraps, with a step of its own."""

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.__class__ = type("Lightning", (type(self), type(optimizer)), {})

    @property
    def state(self):
        raise AssertionError("the state is that of what it wraps")

    @property
    def param_groups(self):
        return self._optimizer.param_groups


class Accelerated(torch.optim.Optimizer):
    """As accelerate's is: an optimizer with train() and eval(), which it hands on."""

    __module__ = "accelerate.optimizer"

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def step(self, closure=None):
        self.optimizer.step(closure)

    def train(self):
        pass

    def eval(self):
        pass


@pytest.mark.parametrize("wrap", [Around, Imitating, Accelerated])
def test_what_a_wrapper_holds_is_what_counts(wrap):
    params = parameters()
    inner = ADAM(params, lr=1e-2)
    stepped(inner, params, gradients(0))
    outer = wrap(Accelerated(inner)) if wrap is Around else wrap(inner)
    check_optimizer(outer)
    expected, found = metric_of(inner, params), metric_of(outer, params)
    assert found.names == expected.names
    for key, scale in expected.scales.items():
        torch.testing.assert_close(found.scales[key], scale)
    with pytest.raises(InputError, match="ASGD keeps an average"):
        check_optimizer(wrap(torch.optim.ASGD(params)))


def test_the_groups_that_parameters_are_held_in():
    params = parameters()
    optimizer = ADAM([{"params": params[:1]}, {"params": params[1:2], "lr": 0.5}])
    held = held_by(Accelerated(optimizer))
    assert held == dict(zip(map(id, params), optimizer.param_groups, strict=False))
    assert held[id(params[1])] is optimizer.param_groups[1]


class NeedsClosure(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


class ScheduleFree(torch.optim.SGD):
    def train(self):
        """To y, from which the gradients are taken."""

    def eval(self):
        """To x, the average."""


class Lookahead(torch.optim.SGD):
    """Every k steps the parameters go back towards slow ones."""


def with_attribute(name, value):
    def made(params):
        optimizer = torch.optim.SGD(params, lr=0.1)
        setattr(optimizer, name, value)
        return optimizer

    return made


def stash(params):
    """As apex.amp's O2 leaves it."""
    found = types.SimpleNamespace(fp32_from_fp16_groups=[[torch.zeros(1)]])
    return with_attribute("_amp_stash", found)(params)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (torch.optim.LBFGS, "LBFGS calls a closure"),
        (NeedsClosure, "NeedsClosure calls a closure"),
        (torch.optim.ASGD, "ASGD keeps an average of its iterates"),
        (ScheduleFree, r"ScheduleFree has train\(\) and eval\(\)"),
        (Lookahead, "Lookahead keeps slow weights"),
        (with_attribute("master_weights", True), "SGD keeps weights in float32"),
        (with_attribute("fp32_from_fp16_groups", [[0]]), "SGD keeps weights in float32"),
        (stash, "SGD keeps weights in float32"),
        (lambda params: None, "expected one torch.optim.Optimizer; got NoneType"),
        (lambda params: [ADAM(params)], "expected one torch.optim.Optimizer; got list"),
        (lambda params: nn.Linear(1, 1), "expected one torch.optim.Optimizer; got Linear"),
        (
            lambda params: torch.optim.lr_scheduler.StepLR(ADAM(params), 1),
            "StepLR is a scheduler of learning rates; give the optimizer",
        ),
        (
            lambda params: torch.optim.lr_scheduler.ReduceLROnPlateau(ADAM(params)),
            "ReduceLROnPlateau is a scheduler",
        ),
    ],
)
def test_what_cannot_be_guarded_is_refused_with_the_reason(made, said):
    with pytest.raises(InputError, match=f"optimizer: {said}"):
        check_optimizer(made(parameters()))


@pytest.mark.parametrize(
    "made",
    [
        ADAM,
        torch.optim.SGD,
        torch.optim.Adafactor,
        torch.optim.SparseAdam,
        with_attribute("master_weights", False),
        with_attribute("fp32_from_fp16_groups", []),
        lambda params: ADAM(params, fused=True),
    ],
)
def test_all_others_can_be_guarded(made):
    optimizer = made(parameters())
    check_optimizer(optimizer)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # which wraps the step
    check_optimizer(optimizer)


def test_a_closure_that_does_what_the_error_says_trains():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    optimizer, surgery = torch.optim.LBFGS(model.parameters()), gs.Surgery("upgrad", model)
    with pytest.raises(InputError, match=r"(?s)step\(closure\) yourself.*line_search_fn=None"):
        surgery.step(list((model(x) - y).pow(2).mean(0)), optimizer)

    def closure():
        optimizer.zero_grad()
        losses = list((model(x) - y).pow(2).mean(0))
        surgery.backward(losses)
        return sum(losses)

    first = optimizer.step(closure)
    wide = torch.cat([x, torch.ones(20, 1)], 1)
    best = (wide @ torch.linalg.lstsq(wide, y).solution - y).pow(2).mean(0).sum()
    assert closure() < first
    assert torch.isclose(closure(), best, rtol=1e-4)

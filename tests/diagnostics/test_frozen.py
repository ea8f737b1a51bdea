"""diagnose leaves the model as it was, also on an error."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs


class Changing(nn.Module):
    """Changes what a model can: running statistics, a buffer by assignment, a weight, its mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.a, self.b = nn.Linear(6, 1), nn.Linear(6, 1)
        self.register_buffer("count", torch.zeros(1))

    def losses(self, x):
        self.count = self.count + 1
        with torch.no_grad():
            self.a.bias.add_(0.5)
        z = self.body(x * (1 + random.random() + np.random.rand()))
        self.b.eval()
        return {"a": self.a(z).pow(2).mean(), "b": (self.b(z) - 1).pow(2).mean()}


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Changing()
    made.body[0].weight.grad = torch.ones(6, 4)
    made.body[0].bias.requires_grad_(False)
    return made


def everything(model):
    """What must stay, as numbers that compare."""
    return (
        {name: x.detach().clone() for name, x in model.state_dict().items()},
        {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    )


def check_same(model, before, objects):
    now = everything(model)
    for name, x in now[0].items():
        assert torch.equal(x, before[0][name]), name
    for name, g in now[1].items():
        assert (g is None) == (before[1][name] is None), name
        assert g is None or torch.equal(g, before[1][name])
    assert now[2] == before[2]
    assert torch.equal(now[3], before[3])
    assert now[4:] == before[4:]
    assert [id(x) for x in (*model.parameters(), *model.buffers())] == objects


def fixed(model, x):
    """Losses that undo the change of the weight, so that both passes see one model."""
    with torch.no_grad():
        model.a.bias.fill_(0.0)
    return model.losses(x)


def test_the_model_is_as_it_was(model):
    given = torch.randn(8, 5, 4).unbind()
    before = everything(model)
    objects = [id(x) for x in (*model.parameters(), *model.buffers())]
    found = gs.diagnose(model, given, fixed)
    check_same(model, before, objects)
    assert found.batches == 8
    assert list(found) == ["a+b"]
    assert found["a+b"].parameters == 3  # the frozen bias is not among them


def test_the_model_is_as_it_was_after_an_error(model):
    def failing(model, x):
        found = model.losses(x)
        if x[0, 0] > 5:
            raise RuntimeError("out of data")
        return found

    given = [*torch.randn(9, 5, 4).clamp(-5, 5), torch.full((5, 4), 9.0)]
    before = everything(model)
    objects = [id(x) for x in (*model.parameters(), *model.buffers())]
    with pytest.raises(RuntimeError, match="out of data"):
        gs.diagnose(model, given, failing)
    check_same(model, before, objects)


def test_losses_that_change_between_the_passes_are_an_error(model):
    with pytest.raises(gs.InputError, match="same batch and weights"):
        gs.diagnose(model, torch.randn(8, 5, 4).unbind(), lambda model, x: model.losses(x))


BATCHES = [torch.ones(3)] * 9


def two(model, x):
    y = model(x)
    return {"a": y[0], "b": y[1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": BATCHES[:3]}, "3 were given, and 8 or more"),
        ({"losses": lambda model, x: model(x).sum()}, "two or more scalar losses"),
        ({"losses": lambda model, x: {"a": model(x)[0]}}, "two or more scalar losses"),
        ({"model": "net"}, "expected a Module"),
        ({"count": 4}, "8 or more batches; got 4"),
        ({"margin": 2}, "from 0 to below 1; got 2"),
        ({"level": 95}, "between 0 and 1"),
        ({"joint": "A"}, "Did you mean 'a'"),
        ({"parameters": []}, "none that requires a gradient"),
        ({"parameters": torch.nn.Linear(2, 2)}, "no parameter is reached by two"),
    ],
)
def test_what_cannot_be_used_is_said(change, message):
    given = {"model": nn.Linear(3, 2), "batches": BATCHES, "losses": two, **change}
    with pytest.raises(gs.InputError, match=message):
        gs.diagnose(**given)


def test_what_is_not_finite_names_the_objective():
    given = [*BATCHES[:8], torch.full((3,), torch.nan)]
    with pytest.raises(gs.NonFiniteError, match="'a' is nan on batch 8"):
        gs.diagnose(nn.Linear(3, 2), given, two)


def test_groups_by_name_and_losses_without_names():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    given = {"first": model[0], "second": [model[1].weight]}
    found = gs.diagnose(
        model, torch.randn(8, 3).unbind(), lambda model, x: model(x), parameters=given
    )
    assert {name: group.parameters for name, group in found.items()} == {"first": 2, "second": 1}
    assert found["first"].objectives == ("0", "1")
    with pytest.raises(KeyError, match="'first', 'second'"):
        found["third"]


def test_training_imports_nothing_of_it(fresh):
    done = fresh(
        "import sys, gradsurgery as gs\n"
        "print([name for name in sys.modules if name.startswith('gradsurgery.diagnostics')])\n"
        "print('diagnose' in dir(gs), gs.diagnose.__name__)\n"
    )
    assert done.stdout.splitlines() == ["[]", "True diagnose"], done.stderr

"""Layers that are replaced between steps, and containers of every kind."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import gradsurgery as gs
from tests.support.two_heads import Two, losses_of


def assigned(model):
    model.enc = None
    model.enc = nn.Linear(4, 5)


def deleted(model):
    del model.enc
    model.enc = nn.Linear(4, 5)


def popped(model):
    model._modules.pop("enc")
    model.enc = nn.Linear(4, 5)


def new_parameter(model):
    del model.enc.weight
    model.enc.weight = nn.Parameter(torch.randn(5, 4))


def swapped(model):
    other = nn.Linear(4, 5)
    model.enc.__dict__, other.__dict__ = other.__dict__, model.enc.__dict__


@pytest.mark.parametrize("change", [assigned, deleted, popped, new_parameter, swapped])
def test_a_new_layer_under_the_same_name_is_found_in_every_try(change):
    torch.manual_seed(0)
    model = Two()
    surgery, x = gs.Surgery("mgda", model), torch.randn(8, 4)
    for _ in range(60):
        surgery.backward(losses_of(model, x))
        change(model)
        model.zero_grad()
        record = surgery.backward(losses_of(model, x))
        assert model.enc.weight.grad is not None
        assert model.enc.bias.grad is not None
        assert record["a+b"].parameters == 2


def test_a_replaced_module_dict_entry_is_found():
    model = nn.ModuleDict({"t": nn.Linear(4, 5), "a": nn.Linear(5, 1), "b": nn.Linear(5, 1)})
    surgery, x = gs.Surgery("mgda", model), torch.randn(8, 4)
    for _ in range(60):
        z = model["t"](x)
        surgery.backward({name: model[name](z).pow(2).mean() for name in "ab"})
        model.pop("t")
        model["t"] = nn.Linear(4, 5)
        z = model["t"](x)
        surgery.backward({name: model[name](z).pow(2).mean() for name in "ab"})
        assert model["t"].weight.grad is not None


def test_named_parameters_set_on_the_instance_or_the_class_later_are_asked():
    class Own(Two):
        pass

    x = torch.randn(8, 4)
    for on_instance in (True, False):
        model = Own()
        surgery = gs.Surgery("mgda", model, others="ignore")
        surgery.backward(losses_of(model, x))
        model.zero_grad()

        def without_bias(*args, model=model, **kwargs):
            return ((n, p) for n, p in nn.Module.named_parameters(model) if not n.endswith("bias"))

        (model if on_instance else Own).named_parameters = without_bias
        surgery.backward(losses_of(model, x))
        assert model.enc.bias.grad is None
        assert model.enc.weight.grad is not None


def test_a_class_put_in_the_place_of_another_is_asked():
    class Renamed(Two):
        def named_parameters(self, *args, **kwargs):
            return ((n, p) for n, p in super().named_parameters(*args, **kwargs) if "enc" in n)

    model, x = Two(), torch.randn(8, 4)
    surgery = gs.Surgery("mgda", model, others="ignore")
    surgery.backward(losses_of(model, x))
    model.zero_grad()
    model.__class__ = Renamed
    surgery.backward(losses_of(model, x))
    assert model.enc.weight.grad is not None
    assert model.a.weight.grad is None


class WithScriptedPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.jit.script(Two())

    def forward(self, x):
        first, second = self.body(x)
        return first, second


WAYS = {
    "scripted": torch.jit.script,
    "traced": lambda model: torch.jit.trace(model, torch.randn(8, 4)),
    "a scripted part": lambda model: WithScriptedPart(),
    "fx": torch.fx.symbolic_trace,
    "exported": lambda model: torch.export.export(model, (torch.randn(8, 4),)).module(),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "parametrized": lambda model: (
        parametrize.register_parametrization(model.enc, "weight", nn.Tanh()) and model
    ),
    "copied": copy.deepcopy,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", ["module", "list", "none"])
def test_containers_of_every_kind_give_the_groups_of_the_plain_model(way, given):
    torch.manual_seed(0)
    model, x = WAYS[way](Two()), torch.randn(8, 4)
    surgery = gs.Surgery(
        "mgda", {"module": model, "list": list(model.parameters()), "none": None}[given]
    )
    for _ in range(4):  # TorchScript makes its regions from the second call on
        model.zero_grad()
        losses = losses_of(model, x)
        trained = [p for p in model.parameters() if p.requires_grad]
        alone = torch.autograd.grad(losses["a"], trained, retain_graph=True, allow_unused=True)
        record = surgery.backward(losses)
        assert set(record) == {"a+b", "a", "b"}
        for p, g, (name, _) in zip(trained, alone, model.named_parameters(), strict=True):
            if name.split(".")[-2] == "a":
                assert torch.allclose(p.grad, g, rtol=1e-5, atol=1e-7)


def test_lazy_layers_are_trained_once_they_have_a_shape():
    model = nn.ModuleDict({"t": nn.LazyLinear(5), "a": nn.LazyLinear(1), "b": nn.LazyLinear(1)})
    surgery, x = gs.Surgery("mgda", model), torch.randn(8, 4)
    for _ in range(3):
        z = model["t"](x)
        record = surgery.backward({name: model[name](z).pow(2).mean() for name in "ab"})
        assert set(record) == {"a+b", "a", "b"}
        assert model["t"].weight.grad is not None

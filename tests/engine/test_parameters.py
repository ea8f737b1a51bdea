"""What is trained under which names: found again in every step, and looked for when it changed."""

import copy
import pickle

import pytest
import torch
from torch import nn

from gradsurgery.engine.parameters import Parameters

pytestmark = pytest.mark.quick


class Scaled(nn.Module):
    """Layers within containers, and parameters of a single entry."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3))
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
        self.scale, self.shift = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))


def named(parameters):
    return [name for name, _, _ in parameters.named().values()]


def expected(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def the_same_value_in_another_tensor(model):
    model.scale = nn.Parameter(torch.tensor(1.0))


def a_swap_of_equal_values(model):
    model._parameters["scale"], model._parameters["shift"] = model.shift, model.scale


def another_order_of_the_same(model):
    model._parameters["scale"] = model._parameters.pop("scale")


def a_layer_moved_to_the_next_container(model):
    layer = model.trunk._modules.pop("2")
    model.heads._modules = {"2": layer, **model.heads._modules}


def a_dict_of_parameters_in_the_place_of_another(model):
    model._parameters = {"scale": model.scale}


def a_parameter_of_a_layer_that_had_none(model):
    model.trunk[1].register_parameter("slope", nn.Parameter(torch.tensor(0.1)))


def one_frozen(model):
    model.trunk[0].bias.requires_grad_(False)


def one_removed(model):
    del model.heads["b"]


def one_of_none(model):
    model.trunk[0].bias = None


def the_insides_of_a_layer_swapped(model):
    other = nn.Linear(3, 1)
    model.heads["a"].__dict__, other.__dict__ = other.__dict__, model.heads["a"].__dict__


CHANGES = [
    the_same_value_in_another_tensor,
    a_swap_of_equal_values,
    another_order_of_the_same,
    a_layer_moved_to_the_next_container,
    a_dict_of_parameters_in_the_place_of_another,
    a_parameter_of_a_layer_that_had_none,
    one_frozen,
    one_removed,
    one_of_none,
    the_insides_of_a_layer_swapped,
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_found_and_nothing_is_looked_for_without_one(change):
    model = Scaled()
    parameters = Parameters(model)
    before = parameters.named()
    assert parameters.named() is before
    change(model)
    after = parameters.named()
    assert named(parameters) == expected(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert [id(p) for p in trained] == list(after)
    assert after is not before
    assert parameters.named() is after


def test_a_frozen_parameter_that_is_trained_again_is_found():
    model = Scaled()
    model.scale.requires_grad_(False)
    parameters = Parameters({"all": model})
    assert "all/scale" not in named(parameters)
    model.scale.requires_grad_(True)
    assert "all/scale" in named(parameters)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_has_its_own_tensors(again):
    parameters = Parameters(Scaled())
    other = again(parameters)
    assert named(other) == named(parameters)
    assert not other.named().keys() & parameters.named().keys()


def test_a_module_that_names_parameters_in_its_own_way_is_asked_every_time():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.all = [nn.Parameter(torch.ones(2)) for _ in range(2)]

        def named_parameters(self, *args, **kwargs):
            return ((f"p{i}", p) for i, p in enumerate(self.all))

    model = Own()
    parameters = Parameters(model)
    assert named(parameters) == ["p0", "p1"]
    model.all.append(nn.Parameter(torch.ones(3)))
    assert named(parameters) == ["p0", "p1", "p2"]

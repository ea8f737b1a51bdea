"""Names that coincide, and a single tensor in place of a group."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders, grads, same
from tests.support.saved import Two, data, renamed

pytestmark = pytest.mark.quick

# ---- names that coincide


def test_group_names_that_coincide_as_strings_are_an_error():
    model = TwoEncoders()
    with pytest.raises(gs.InputError, match="two groups are named '1'"):
        gs.Surgery("mgda", {1: model.audio, "1": model.visual})
    with pytest.raises(gs.InputError, match="not empty"):
        gs.Surgery("mgda", {"": model.audio})
    assert set(gs.backward(model.losses(), {1: model.audio, 2: model.visual}, "mgda")) == {
        "1",
        "2",
        "others",
    }


def test_a_slash_in_a_group_or_a_parameter_hides_no_parameter():
    first, second = (nn.ParameterDict({name: nn.Parameter(torch.ones(2))}) for name in ("b/w", "w"))
    losses = {
        "x": first["b/w"].sum() + second["w"].sum(),
        "y": first["b/w"].pow(2).sum() + 3 - second["w"].sum(),
    }
    surgery = gs.Surgery("moco", {"a": first, "a/b": second})
    record = surgery.backward(losses)
    assert {name: group.parameters for name, group in record.items()} == {"a": 1, "a/b": 1}
    assert first["b/w"].grad is not None
    assert second["w"].grad is not None
    assert set(dict(surgery.state_dict()["reach"])) == {"a/b/w", "a\\/b/w"}


def test_a_state_with_a_slash_in_a_groups_name_from_an_earlier_version_loads():
    model = Two()
    surgery = gs.Surgery("moco", {"x/y": model})
    surgery.backward(model(data(0)))
    old = renamed(surgery.state_dict(), lambda n: n.replace("\\", ""))
    assert "x/y/a.bias" in old["reach"]
    again = gs.Surgery("moco", {"x/y": model})
    again.load_state_dict(old)
    found = []
    for resumed in (surgery, again):
        model.zero_grad()
        resumed.backward(model(data(1)))
        found.append(grads(model))
    assert same(*found)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_losses_whose_joined_names_coincide_lose_no_group(order):
    """Parameters reached by a and b, by "a+b" alone, by "a+b (2)" alone, ..."""
    reached = [("a", "b"), ("a+b",), ("a+b (2)",), ("a", "a+b"), ("a", "b", "a+b")]
    ps = nn.ParameterList(nn.Parameter(torch.ones(2)) for _ in reached)
    names = ["a", "b", "a+b", "a+b (2)"]
    surgery = gs.Surgery("mgda", [ps[i] for i in order])

    def losses(kept):
        return {
            n: sum((k + 1) * ps[i].sum() for i, found in enumerate(reached) if n in found)
            for k, n in enumerate(names)
            if n in kept
        }

    record = surgery.backward(losses(names))
    assert len(record) == 5
    assert sum(group.parameters for group in record.values()) == 5
    assert all(p.grad is not None for p in ps)
    assert record["a+b (2)"].objectives == ("a+b (2)",)
    titles = {name: set(group.objectives) for name, group in record.items()}
    later = surgery.backward(losses(["a+b", "a+b (2)"]))  # a group has one title in every step
    for name, group in later.items():
        assert set(group.objectives) == titles[name] & {"a+b", "a+b (2)"}


def test_an_explicit_group_may_be_named_others_or_losses():
    model = TwoEncoders()
    parameters = {"others": model.audio, "losses": model.visual, "others (2)": model.audio_head}
    for strategy in ("mgda", "uw", "moco"):
        surgery = gs.Surgery(strategy, parameters)
        record = surgery.backward(model.losses())
        assert set(record) == {*parameters, "others (3)"}
        assert [record[name].parameters for name in parameters] == [4, 4, 2]
        again = gs.Surgery(strategy, parameters)
        again.load_state_dict(surgery.state_dict())
        assert str(again.state_dict()) == str(surgery.state_dict())
    partly = gs.Surgery("mgda", parameters)
    partly.backward(model.losses())
    record = partly.backward(
        {"visual": model.losses()["visual"]}
    )  # the explicit "others" is not reached
    assert {name: group.parameters for name, group in record.items()} == {
        "losses": 4,
        "others (3)": 2,
    }


def test_a_loss_named_others_keeps_its_group():
    model = Two()
    losses = model(data(0))
    record = gs.backward(
        {"others": losses["a"], "b": losses["b"]},
        [*model.trunk.parameters(), *model.a.parameters()],
        "mgda",
    )
    assert {name: group.parameters for name, group in record.items()} == {
        "b+others": 2,
        "others": 2,
        "others (2)": 2,
    }


def test_a_reached_group_beside_an_explicit_one_of_that_name_keeps_its_own():
    model = Two()
    z = model.trunk(data(0))
    losses = {"a": model.a(z).pow(2).mean(), "b": (model.b(z) - 1).pow(2).mean()}
    record = gs.backward(
        losses,
        {"a+b": [*model.a.parameters(), *model.b.parameters(), *model.trunk.parameters()]},
        "mgda",
        features=z,
    )
    assert {name: group.parameters for name, group in record.items()} == {"a+b": 4, "a+b (2)": 1}


def test_features_whose_names_look_alike_are_an_error():
    class Key:
        def __repr__(self):
            return "z"

    model = Two()
    x, y = model.trunk(data(0)), model.trunk(data(1))
    losses = {"a": model.a(x).mean(), "b": model.b(y).mean()}
    with pytest.raises(gs.InputError, match="features: two of them"):
        gs.backward(losses, model, "mgda", features={Key(): x, Key(): y})


# ---- every tensor a group


@pytest.mark.parametrize(
    "given",
    [
        lambda m: dict(m.named_parameters()),
        lambda m: {"w": m.a.weight},
        lambda m: {"trunk": m.trunk, "w": m.a.weight},
        lambda m: {"a": list(m.a.parameters()), "w": m.b.weight},
    ],
)
def test_a_single_tensor_in_place_of_a_group_is_an_error_that_says_what_to_give(given):
    model = Two()
    for use in (
        lambda p: gs.Surgery("mgda", p),
        lambda p: gs.backward(model(data(0)), p, "mgda"),
        lambda p: gs.inspect(model(data(0)), p),
    ):
        with pytest.raises(
            gs.InputError,
            match=r"single tensor.*Give the model, or list\(model.parameters\(\)\).*: \[tensor\]\}",
        ):
            use(given(model))


def test_a_group_of_one_tensor_is_a_list_of_one():
    model = Two()
    record = gs.backward(
        model(data(0)), {name: [p] for name, p in model.named_parameters()}, "mgda"
    )
    assert set(record) == {name for name, _ in model.named_parameters()}
    assert {group.parameters for group in record.values()} == {1}


def test_a_dict_in_place_of_a_list_of_tensors_is_an_error():
    model = Two()
    with pytest.raises(gs.InputError, match="'?trunk'?: .*got a dict. Give its values"):
        gs.Surgery("mgda", {"trunk": dict(model.trunk.named_parameters())})

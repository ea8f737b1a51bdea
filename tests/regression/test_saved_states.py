"""Names: of parameters in saved states, of groups and losses that coincide, and of what is given in place of them."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from models import TwoEncoders, grads, same
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)

import gradsurgery as gs

ROWS = ("db-mtl", "moco")  # strategies that keep a gradient per objective and parameter


class Two(nn.Module):
    """A trunk and two heads."""

    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, width), nn.Tanh())
        self.a, self.b = nn.Linear(width, 1), nn.Linear(width, 1)
        self.double()

    def forward(self, x):
        z = self.trunk(x)
        return {
            "a": (self.a(z) - 1).pow(2).mean(),
            "b": (self.b(z) + x.sum(1, keepdim=True)).pow(2).mean(),
        }


def data(seed):
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_part(model):
    model.trunk = compiled(model.trunk)
    model.b = nn.DataParallel(model.b)
    return model


def checkpointed(model):
    apply_activation_checkpointing(model, check_fn=lambda m: isinstance(m, nn.Linear))
    return model


class Averaged(nn.Module):
    """A wrapper of a user's own."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


WRAPPERS = {
    "plain": lambda m: m,
    "compile": compiled,
    "DataParallel": nn.DataParallel,
    "both": lambda m: nn.DataParallel(compiled(m)),
    "in part": compiled_in_part,
    "checkpoint": checkpointed,
    "own": Averaged,
}


def trained(strategy, how="plain", steps=4):
    """A Surgery after some steps on a wrapped model."""
    model = WRAPPERS[how](Two())
    surgery = gs.Surgery(strategy, model)
    for seed in range(steps):
        surgery.backward(model(data(seed)))
    return surgery


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def next_gradient(strategy, how, state):
    """The gradient of the step after loading, on the model as it was at first."""
    plain = Two()
    model = WRAPPERS[how](plain)
    surgery = gs.Surgery(strategy, model)
    if state is not None:
        surgery.load_state_dict(through_a_file(state))
    surgery.backward(model(data(9)))
    return torch.cat([p.grad.flatten() for p in plain.parameters()])


def renamed(state, rename):
    """A state with other names of parameters, as an earlier version saved it: without options and groups."""
    state = copy.deepcopy({k: v for k, v in state.items() if k not in ("options", "explicit")})
    state["reach"] = {rename(name): found for name, found in state["reach"].items()}
    for _, group in state["groups"]:
        for name, pieces in group["tensors"].items():
            group["tensors"][name] = tuple(((o, rename(p)), x) for (o, p), x in pieces)
    return state


def assert_unchanged(surgery, before):
    assert str(surgery.state_dict()) == str(before)


# ---- states under other names


@pytest.mark.parametrize("strategy", ROWS)
def test_a_state_continues_alike_whatever_wraps_the_model_before_and_after(strategy):
    state = trained(strategy).state_dict()
    want, fresh = next_gradient(strategy, "plain", state), next_gradient(strategy, "plain", None)
    assert not torch.allclose(want, fresh, rtol=1e-2)
    for how in WRAPPERS:
        assert torch.equal(next_gradient(strategy, how, state), want), how
        wrapped = trained(strategy, how).state_dict()
        assert wrapped["reach"] == state["reach"], how
        assert torch.equal(next_gradient(strategy, "plain", wrapped), want), how


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: f"_orig_mod.{n}",
        lambda n: f"module.{n}",
        lambda n: f"module._orig_mod.{n}",
        lambda n: n.replace("trunk.", "trunk._orig_mod."),
        lambda n: f"_fsdp_wrapped_module.{n}".replace(
            "trunk.", "trunk._checkpoint_wrapped_module."
        ),
    ],
)
def test_a_state_that_an_earlier_version_saved_with_wrappers_names_loads(rename):
    state = trained("moco").state_dict()
    want = next_gradient("moco", "plain", state)
    old = renamed(state, rename)
    for how in ("plain", "compile", "in part"):
        assert torch.equal(next_gradient("moco", how, old), want)


def test_layers_wrapped_between_two_steps_keep_their_state():
    gradients = []
    for wrap in (lambda m: m, compiled_in_part, checkpointed):
        model = Two()
        surgery = gs.Surgery("moco", model)
        for seed in range(3):
            surgery.backward(model(data(seed)))
        model.zero_grad()
        parameters = list(model.parameters())
        surgery.backward(wrap(model)(data(3)))
        gradients.append([p.grad for p in parameters])
    assert all(
        torch.equal(x, y)
        for other in gradients[1:]
        for x, y in zip(gradients[0], other, strict=True)
    )


class Nested(nn.Module):
    """Its own parameter and that of its `module` have one name without prefixes; a head per loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.module = nn.Linear(3, 3, bias=False)

    def forward(self, x):
        z = self.module((x @ self.weight).tanh())
        return {"a": z.pow(2).mean(), "b": (z - 1).pow(2).mean()}


@pytest.mark.parametrize(
    "wrap", [compiled, nn.DataParallel, lambda m: nn.DataParallel(compiled(m))]
)
def test_two_parameters_with_one_name_without_prefixes_keep_apart(wrap):
    model, x = Nested(), torch.ones(2, 3)
    surgery = gs.Surgery("moco", model)
    surgery.backward(model(x))
    state = surgery.state_dict()
    assert set(state["reach"]) == {"weight", "module.weight"}
    prefix = "module." if wrap is nn.DataParallel else ""
    found = []
    for given, saved in (
        (model, state),
        (wrap(model), state),
        (model, renamed(state, lambda n: prefix + n)),
    ):
        resumed = gs.Surgery("moco", given)
        resumed.load_state_dict(saved)
        model.zero_grad()
        resumed.backward(given(x))
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


@pytest.mark.parametrize("strategy", ["mgda", *ROWS])
def test_a_state_of_parameters_that_are_not_given_is_an_error(strategy):
    state = trained(strategy).state_dict()
    other = nn.ModuleDict({"enc": nn.Linear(4, 3), "h": nn.Linear(3, 2)})
    for parameters in (other, Two().trunk, list(Two().parameters()), {"all": Two()}):
        surgery = gs.Surgery(strategy, parameters)
        before = surgery.state_dict()
        with pytest.raises(gs.InputError, match="'trunk.0.weight'|saved with groups by reach"):
            surgery.load_state_dict(state)
        assert_unchanged(surgery, before)


def test_a_state_that_never_had_some_of_the_parameters_loads():
    surgery = trained("moco")
    wider = Two()
    wider.c = nn.Linear(8, 1).double()
    resumed = gs.Surgery("moco", wider)
    resumed.load_state_dict(surgery.state_dict())
    resumed.backward({**wider(data(1)), "c": wider.c(wider.trunk(data(1))).pow(2).mean()})
    assert wider.c.weight.grad is not None


def test_a_frozen_parameter_is_one_that_is_given():
    state = trained("moco").state_dict()
    model = Two()
    model.a.requires_grad_(False)
    gs.Surgery("moco", model).load_state_dict(state)


def test_strict_false_takes_what_fits():
    state = trained("moco").state_dict()
    part = nn.ModuleDict({"trunk": Two().trunk, "new": nn.Linear(8, 1).double()})
    surgery = gs.Surgery("moco", part)
    surgery.load_state_dict(state, strict=False)
    kept = surgery.state_dict()
    assert set(kept["reach"]) == {"trunk.0.weight", "trunk.0.bias"}
    assert {
        p
        for _, group in kept["groups"]
        for pieces in group["tensors"].values()
        for (_, p), _ in pieces
    } == set(kept["reach"])
    assert kept["step"] == 4
    nothing = gs.Surgery("moco", nn.Linear(2, 2))
    nothing.load_state_dict(state, strict=False)
    assert nothing.state_dict()["groups"] == ()


def test_a_state_of_other_options_is_an_error_that_shows_both():
    model = Two()
    saved = gs.Surgery("cagrad", model, c=0.4).state_dict()
    other = gs.Surgery("cagrad", model, c=0.8)
    with pytest.raises(
        gs.InputError, match=r"saved with cagrad\(c=0\.4\); this Surgery has cagrad\(c=0\.8\)"
    ):
        other.load_state_dict(saved)
    other.load_state_dict(saved, strict=False)
    other.load_state_dict(
        {k: v for k, v in saved.items() if k != "options"}
    )  # older ones do not say
    gs.Surgery("cagrad", model, c=np.float64(0.4)).load_state_dict(saved)
    weighted = gs.Surgery("constant", model, preference={"a": 1, "b": 2}).state_dict()
    gs.Surgery("constant", model, preference={"b": 2.0, "a": 1.0}).load_state_dict(
        through_a_file(weighted)
    )
    with pytest.raises(gs.InputError, match="preference"):
        gs.Surgery("constant", model, preference=[1, 2]).load_state_dict(weighted)


@pytest.mark.parametrize("strategy", ["mgda", "uw", "moco"])
def test_a_state_of_other_explicit_groups_is_an_error_that_says_so(strategy):
    model = Two()
    layouts = {
        "one": {"all": model},
        "two": {"trunk": model.trunk, "heads": nn.ModuleList([model.a, model.b])},
        "reach": model,
    }
    for before, given in layouts.items():
        surgery = gs.Surgery(strategy, given)
        surgery.backward(model(data(0)))
        for after, there in layouts.items():
            other = gs.Surgery(strategy, there)
            if before == after:
                other.load_state_dict(surgery.state_dict())
                continue
            with pytest.raises(
                gs.InputError,
                match="explicit groups .* this Surgery has|groups by reach; this Surgery has",
            ):
                other.load_state_dict(surgery.state_dict())
            assert other.state_dict()["step"] == 0
            other.load_state_dict(surgery.state_dict(), strict=False)
    with pytest.raises(
        gs.InputError, match="explicit groups 'all'; this Surgery has groups by reach"
    ):
        gs.Surgery(strategy, model).load_state_dict(
            gs.Surgery(strategy, layouts["one"]).state_dict()
        )


def test_a_list_is_known_by_position():
    model = Two()
    everything = list(model.parameters())
    surgery = gs.Surgery("moco", everything)
    surgery.backward(model(data(0)))
    gs.Surgery("moco", [*everything, nn.Parameter(torch.ones(1))]).load_state_dict(
        surgery.state_dict()
    )
    with pytest.raises(gs.InputError, match="6 given|not among the 4 given: '4', '5'"):
        gs.Surgery("moco", everything[:4]).load_state_dict(surgery.state_dict())


@pytest.mark.parametrize("strategy", ROWS)
def test_gradients_of_another_shape_are_an_error_when_loading(strategy):
    state = trained(strategy).state_dict()
    surgery = gs.Surgery(strategy, Two(width=5))
    for strict in (True, False):
        with pytest.raises(
            gs.InputError, match=r"'trunk.0.weight' has shape \[8, 4\], the parameter \[5, 4\]"
        ):
            surgery.load_state_dict(state, strict)
    assert surgery.state_dict()["step"] == 0


@pytest.mark.parametrize("strategy", ROWS)
def test_with_and_without_given_parameters_gradients_are_not_dropped_silently(strategy):
    model = Two()
    given, free = gs.Surgery(strategy, model), gs.Surgery(strategy)
    for surgery in (given, free):
        surgery.backward(model(data(0)))
    with pytest.raises(gs.InputError, match="parameters=None"):
        gs.Surgery(strategy).load_state_dict(given.state_dict())
    with pytest.raises(gs.InputError, match="'#1'.*saved with parameters=None"):
        gs.Surgery(strategy, model).load_state_dict(free.state_dict())
    gs.Surgery(strategy).load_state_dict(free.state_dict())
    loose = gs.Surgery(strategy)
    loose.load_state_dict(given.state_dict(), strict=False)
    loose.backward(model(data(1)))


def places(value, path=()):
    """Every place within a saved state."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, tuple)
        else ()
    )
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    if isinstance(value, dict):
        return {k: changed(v, path[1:], new) if k == path[0] else v for k, v in value.items()}
    return tuple(changed(v, path[1:], new) if i == path[0] else v for i, v in enumerate(value))


def at(value, path):
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("strategy", ["moco", "uw", "cagrad", "gradvac"])
def test_a_changed_state_is_an_error_and_leaves_everything_as_it_was(strategy):
    model = Two()
    surgery = (
        gs.Surgery(strategy, model, every=2)
        if strategy == "cagrad"
        else gs.Surgery(strategy, model)
    )
    for seed in range(3):
        surgery.backward(model(data(seed)))
    state = surgery.state_dict()
    target = (
        gs.Surgery(strategy, model, every=2)
        if strategy == "cagrad"
        else gs.Surgery(strategy, model)
    )
    before = target.state_dict()
    count = 0
    for path in places(state):
        value = at(state, path)
        bad = [None, object()]
        if isinstance(value, torch.Tensor):
            bad += [
                value / 0,
                value * math.nan,
                value.long(),
                value[..., :-1],
                value * 1j,
                value.tolist(),
            ]
        elif isinstance(value, float):
            bad += [math.inf, math.nan, "1", True]
            bad += [-1.0] if "steps" in path else []
        elif isinstance(value, int):
            bad += [
                math.inf,
                -math.inf,
                math.nan,
                -1,
                float(value),
                0.5,
                str(value),
                torch.tensor(value),
                1 << 70,
            ]
        elif isinstance(value, str):
            bad += [3, ("x", 3)]
        elif isinstance(value, dict):
            bad += [3, "text", [1, 2]]
        else:
            bad += [3, {"x": 1}]
        for new in bad:
            count += 1
            with pytest.raises(gs.InputError):
                target.load_state_dict(changed(state, path, new))
    for key in ("strategy", "step", "reach", "groups"):
        with pytest.raises(gs.InputError):
            target.load_state_dict({k: v for k, v in state.items() if k != key})
    for twice in ("groups", "replay"):
        if state[twice]:
            with pytest.raises(gs.InputError, match="twice"):
                target.load_state_dict({**state, twice: state[twice] * 2})
    with pytest.raises(gs.InputError, match="step 9"):
        target.load_state_dict({**state, "solved": 9})
    assert count > 50
    assert_unchanged(target, before)
    target.load_state_dict(state)
    assert_unchanged(target, state)


def test_numbers_that_are_not_there_yet_are_not_saved_and_older_states_have_them_as_nan():
    model = Two()
    runs = []
    for older in (None, False, True):
        surgery = gs.Surgery("dwa", model, window=2)
        for seed in range(6):
            if seed == 3 and older is not None:  # the mean before the last is not known yet
                state = surgery.state_dict()
                (key, numbers), *_ = ((key, group["numbers"]) for key, group in state["groups"])
                assert "nan" not in str(state)
                if older:
                    numbers = {**numbers, "before": ((("a",), math.nan), (("b",), math.nan))}
                    state = {**state, "groups": ((key, {"numbers": numbers, "tensors": {}}),)}
                    with pytest.raises(gs.InputError, match="'before' has nan"):
                        gs.Surgery("dwa", model, window=2).load_state_dict(state)
                    del state["options"]
                surgery = gs.Surgery("dwa", model, window=2)
                surgery.load_state_dict(through_a_file(state))
            record = surgery.backward(model(data(seed)))
        runs.append(record["a+b"].weights.tolist())
    assert runs[0] == runs[1] == runs[2]


def test_a_loss_and_a_strategys_number_may_be_named_steps():
    @gs.strategy("test-decayed", paper="a test", scale="own")
    def decayed(gram, state):
        state.scalar("steps", -np.inf)
        state["steps"] = -0.5
        return np.ones(len(gram))

    try:
        model = Two()
        surgery = gs.Surgery("test-decayed", model)
        losses = model(data(0))
        surgery.backward(
            {"steps": losses["a"], "b": losses["b"]}, weights={"steps": 0.5, "b": -1.0}
        )
        again = gs.Surgery("test-decayed", model)
        again.load_state_dict(surgery.state_dict())
        assert_unchanged(again, surgery.state_dict())
    finally:
        gs.contract.registry._registry.pop("test-decayed")


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
    assert set(surgery.state_dict()["reach"]) == {"a/b/w", "a\\/b/w"}


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


@pytest.mark.parametrize("given", ["module", "groups"])
def test_a_layer_replaced_between_two_micro_batches_is_an_error(given):
    model = Two()
    surgery = gs.Surgery("mgda", model if given == "module" else {"all": model})
    surgery.accumulate(model(data(0)))
    old = model.a
    model.a = nn.Linear(8, 1).double()
    name = "a.weight" if given == "module" else "all/a.weight"
    with pytest.raises(
        gs.InputError, match=f"accumulate: parameter '{name}' is another tensor.*discard"
    ):
        surgery.accumulate(model(data(1)))
    with pytest.raises(
        gs.InputError, match=f"combine: parameter '{name}' is another tensor.*discard"
    ):
        surgery.combine()
    assert old.weight.grad is None
    assert model.a.weight.grad is None
    surgery.discard()
    surgery.accumulate(model(data(1)))
    surgery.combine()
    assert model.a.weight.grad is not None


def test_a_layer_frozen_between_micro_batches_and_combine_keeps_its_gradient():
    model = Two()
    surgery = gs.Surgery("mgda", model)
    surgery.accumulate(model(data(0)))
    model.a.requires_grad_(False)
    surgery.combine()
    assert model.a.weight.grad is not None


def test_numbers_in_order_need_losses_in_order():
    model = Two()
    for names in ("10", "²³", "02", "٠١", ("00", "01"), ("0", "x")):
        for how in (
            {"weights": [1.0, 2.0]},
            {"strategy": "upgrad", "preference": [1.0, 2.0]},
            {"strategy": "constant", "preference": [1.0, 2.0]},
        ):
            losses = dict(zip(names, model(data(0)).values(), strict=True))
            with pytest.raises(
                gs.InputError, match="numbers in order do not fit the objectives.*dict by name"
            ):
                gs.backward(losses, model, **how)
            losses = dict(zip(names, model(data(0)).values(), strict=True))
            how = {
                key: dict(zip(names, value, strict=True)) if isinstance(value, list) else value
                for key, value in how.items()
            }
            gs.backward(losses, model, **how)
    with pytest.raises(gs.InputError, match="dict by name"):
        gs.get_strategy("upgrad", preference=[1.0, 2.0]).weights(
            [[1.0, 0.0], [0.0, 1.0]], objectives=("1", "0")
        )


def test_observed_losses_in_order_need_losses_in_order():
    model = Two()
    a, b = model(data(0)).values()
    surgery = gs.Surgery("famo", model)
    surgery.backward({"1": a, "0": b})
    before = surgery.state_dict()
    with pytest.raises(gs.InputError, match="observe: the losses are '1', '0'.*dict by name"):
        surgery.observe([1.0, 2.0])
    with pytest.raises(gs.InputError, match="same as strings"):
        surgery.observe({"1": 1.0, 1: 2.0, "0": 3.0})
    assert_unchanged(surgery, before)
    surgery.observe({"1": 1.0, "0": 2.0})
    square = gs.Surgery("famo", model)
    square.backward(torch.stack([*model(data(0)).values(), *model(data(1)).values()]).reshape(2, 2))
    square.observe(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert square.state_dict()["observed"] == {"0,0": 1.0, "0,1": 2.0, "1,0": 3.0, "1,1": 4.0}


def test_weights_are_one_for_each_loss():
    model = Two()
    losses = list(model(data(0)).values())
    for strategy, option in (
        ("sum", "weights"),
        ("constant", "preference"),
        ("upgrad", "preference"),
    ):
        for wrong in ([1.0], [1.0, 2.0, 3.0]):
            with pytest.raises(
                gs.InputError,
                match=rf"{option}: {len(wrong)} numbers in order do not fit the objectives '0', '1'",
            ):
                gs.backward(losses, model, strategy, **{option: wrong}, retain_graph=True)
    assert all(p.grad is None for p in model.parameters())


def test_weights_for_a_loss_that_there_never_was_are_an_error():
    model = Two()
    surgery = gs.Surgery("mgda", model)
    with pytest.raises(gs.InputError, match="weights: unknown loss 'bb'. Did you mean 'b'"):
        surgery.backward(model(data(0)), weights={"a": 1.0, "b": 1.0, "bb": 2.0})
    assert model.a.weight.grad is None
    both = {"a": 1.0, "b": 3.0}
    surgery.backward(model(data(0)), weights=both)
    surgery.backward({"a": model(data(0))["a"]}, weights=both)  # losses may come and go
    surgery.backward({"a": model(data(0))["a"]}, weights=both)
    gathering = gs.Surgery("mgda", model)
    gathering.accumulate(model(data(0)), weights=both)
    gathering.accumulate({"a": model(data(0))["a"]}, weights=both)


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


# ---- losses of other forms


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, r"'x'.*got float 0.0.*leave it out"),
        (0, r"'x'.*got int 0.*leave it out"),
        (False, r"'x'.*got bool.*leave it out"),
        (None, r"'x'.*got None: leave it out"),
        (np.float32(1.5), r"'x'.*got float32.*1.5.*leave it out"),
        (np.zeros(()), r"'x'.*got ndarray.*leave it out"),
        (np.zeros(3), r"'x'.*got ndarray.*leave it out"),
        ([], r"'x'.*empty list: leave it out"),
        ({}, r"'x'.*empty dict: leave it out"),
        ([torch.ones(()), torch.ones(())], r"'x'.*got a list of 2. Sum the levels"),
        ((torch.ones(()),), r"'x'.*got a tuple of 1. Sum the levels"),
        ({"p3": torch.ones(()), "p4": torch.ones(())}, r"'x'.*got a dict of 2. Sum its values"),
        (torch.zeros(()), r"'x'.*Leave it out"),
        (torch.tensor(7), r"'x'.*int64.*leave it out"),
        (
            torch.ones(2, 3, requires_grad=True),
            r"'x'.*shape \[2, 3\].*\.mean\(\).*element a name of its own",
        ),
        (torch.ones(0, requires_grad=True), r"'x'.*shape \[0\].*leave it out"),
        ("0.5", r"'x'.*got str"),
    ],
)
def test_a_value_that_is_no_loss_is_an_error_that_says_what_to_do(value, message):
    model = Two()
    for losses in ({**model(data(0)), "x": value}, {"x": value, **model(data(0))}):
        with pytest.raises(gs.InputError, match=message):
            gs.backward(losses, model, "mgda")
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (1, 2, 3), (2, 1, 1, 3)])
def test_a_tensor_of_losses_of_any_shape_is_taken_apart_by_index(shape):
    indices = list(np.ndindex(*shape))
    torch.manual_seed(0)
    trunk, heads = (
        nn.Linear(3, 4).double(),
        nn.ModuleList(nn.Linear(4, 1).double() for _ in indices),
    )
    model = nn.ModuleList([trunk, heads])

    def losses():
        z = trunk(torch.ones(2, 3, dtype=torch.float64)).tanh()
        return [(i + 1) * head(z).pow(2).mean() for i, head in enumerate(heads)]

    def nested(flat, shape):
        if not shape:
            return flat[0]
        size = len(flat) // shape[0]
        return torch.stack(
            [nested(flat[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]
        )

    names = [",".join(map(str, index)) for index in indices]
    expected = gs.backward(dict(zip(names, losses(), strict=True)), model, "mgda")
    want = grads(model)
    model.zero_grad()
    record = gs.backward(nested(losses(), shape), model, "mgda")
    assert record.objectives == tuple(names)
    assert {n: g.parameters for n, g in record.items()} == {
        n: g.parameters for n, g in expected.items()
    }
    assert len(record) == len(names) + 1
    assert same(grads(model), want)


def test_weights_of_a_tensor_of_losses_have_its_shape():
    weight = nn.Parameter(torch.ones(6, dtype=torch.float64))
    factors = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    for weights in (
        factors,
        factors.numpy(),
        factors.tolist(),
        {f"{i},{j}": float(factors[i, j]) for i in range(2) for j in range(3)},
    ):
        weight.grad = None
        gs.backward(weight.reshape(2, 3).pow(2), [weight], "sum", weights=weights)
        assert weight.grad.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    weight.grad = None
    gs.backward(weight.reshape(2, 3).pow(2), [weight], "sum", weights=2.0)
    assert weight.grad.tolist() == [4.0] * 6
    for wrong in (factors.flatten(), [1.0] * 6, factors.T):
        with pytest.raises(
            gs.InputError, match=r"weights: expected numbers of the losses' shape \[2, 3\]"
        ):
            gs.backward(weight.reshape(2, 3).pow(2), [weight], "sum", weights=wrong)
    with pytest.raises(gs.InputError, match="at least one is needed"):
        gs.backward(torch.ones(2, 0, requires_grad=True))

"""Saved states that do not fit: an error that says so, and nothing is changed."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.saved import Two, assert_unchanged, data, through_a_file, trained

pytestmark = pytest.mark.quick

ROWS = ("db-mtl", "moco")  # strategies that keep a gradient per objective and parameter


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
    reached = set(dict(kept["reach"]))
    assert reached == {"trunk.0.weight", "trunk.0.bias"}
    assert {
        p
        for _, group in kept["groups"]
        for pieces in group["tensors"].values()
        for (_, p), _ in pieces
    } == reached
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
            bad += [3, {"x": None}]
        for new in bad:
            count += 1
            with pytest.raises(gs.InputError):
                target.load_state_dict(changed(state, path, new))
    for key in ("strategy", "step", "reach", "groups"):
        with pytest.raises(gs.InputError):
            target.load_state_dict({k: v for k, v in state.items() if k != key})
    for twice in ("groups", "replay", "reach", "weights"):
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


@pytest.mark.usefixtures("temporary")
def test_a_loss_and_a_strategys_number_may_be_named_steps():
    @gs.strategy("test-decayed", paper="a test", scale="own")
    def decayed(gram, state):
        state.scalar("steps", -np.inf)
        state["steps"] = -0.5
        return np.ones(len(gram))

    model = Two()
    surgery = gs.Surgery("test-decayed", model)
    losses = model(data(0))
    surgery.backward({"steps": losses["a"], "b": losses["b"]}, weights={"steps": 0.5, "b": -1.0})
    again = gs.Surgery("test-decayed", model)
    again.load_state_dict(surgery.state_dict())
    assert_unchanged(again, surgery.state_dict())

"""The settings of a Surgery: one table, shown by signatures and texts, checked in one place."""

import inspect
from typing import Literal, get_args, get_origin

import pytest
import torch

import gradsurgery as gs
from gradsurgery.engine.config import SETTINGS, config_of

pytestmark = pytest.mark.quick

OVER_STEPS = {"every", "measure"}


def given(function):
    return inspect.signature(function).parameters


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_the_signatures_with_its_default_and_in_the_texts(name):
    default = given(config_of)[name].default
    for function in (gs.Surgery, *(() if name in OVER_STEPS else (gs.backward,))):
        assert given(function)[name].default == default
        assert given(function)[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert inspect.getdoc(function).count(f"\n    {name}: ") == 1
    assert hasattr(config_of("sum"), name)


def test_the_signatures_are_whole():
    assert list(given(gs.Surgery)) == ["strategy", "parameters", *SETTINGS, "options"]
    settings = [name for name in SETTINGS if name not in OVER_STEPS]
    of_the_step = [name for name in given(gs.Surgery.backward) if name not in ("self", "losses")]
    assert list(given(gs.backward)) == [
        "losses",
        "parameters",
        "strategy",
        *settings,
        *of_the_step,
        "options",
    ]
    assert given(gs.backward)["strategy"].default == "sum"
    assert "Annotated" not in str(inspect.signature(gs.Surgery))
    assert "{settings}" not in gs.Surgery.__doc__ + gs.backward.__doc__


@pytest.mark.parametrize("name", [n for n, kind in SETTINGS.items() if get_origin(kind) is Literal])
def test_choices_are_those_of_the_annotation(name):
    for value in get_args(SETTINGS[name]):
        assert getattr(config_of("sum", **{name: value}), name) == value
    accepted = ", ".join(get_args(SETTINGS[name]))
    for make in (gs.Surgery, lambda *args, **kw: gs.backward([], None, *args, **kw)):
        with pytest.raises(gs.InputError, match=f"unknown {name} 'odd'. .*Known: {accepted}"):
            make("sum", **{name: "odd"})


@pytest.mark.parametrize(
    ("name", "least"), [("seed", 0), ("every", 1), ("min_objectives", 1), ("measure", 1)]
)
def test_counts_are_integers_from_the_least_on(name, least):
    assert getattr(config_of("mgda", **{name: least}), name) == least
    for odd in (least - 1, True, 1.0, "1"):
        with pytest.raises(gs.InputError, match=f"{name}: expected .*an integer >= {least}; got"):
            gs.Surgery("mgda", **{name: odd})


def test_python_names_the_class_where_an_argument_is_missing():
    with pytest.raises(TypeError, match=r"Surgery.__init__\(\) missing .* 'strategy'"):
        gs.Surgery()


def test_unknown_settings_are_options_that_the_strategy_does_not_have():
    model = torch.nn.Linear(2, 2)
    for make in (gs.Surgery, lambda name, model, **kw: gs.backward([], model, name, **kw)):
        with pytest.raises(gs.UnknownNameError, match="unknown option 'evry'"):
            make("mgda", model, evry=2)

"""Warnings point at the user's line: every one that the package gives, wherever it is found."""

import ast
import importlib.metadata
import pathlib
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery import errors
from gradsurgery.contract import registry
from gradsurgery.tasks import plugins, task_names
from tests.support.models import TwoEncoders

PACKAGE = pathlib.Path(gs.__file__).parent
HERE = pathlib.Path(__file__).read_text().splitlines()


def two_losses(model, rows=2):
    return dict(zip("ab", model(torch.ones(rows, 3)).pow(2).mean(0), strict=True))


def gathered_gradients_are_not_saved(_):
    model = nn.Linear(3, 2)
    surgery = gs.Surgery("mgda", model)
    surgery.accumulate(two_losses(model))
    surgery.state_dict()  # here


def joined_losses_cannot_be_told_apart(_):
    heads = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    stacked = torch.stack([head(torch.ones(3)).sum() for head in heads])
    gs.Surgery("mgda", heads).backward(list(stacked.softmax(0)))  # here


def a_leaf_of_another_layout_gets_no_gradient(_):
    leaf, model = torch.eye(4).to_sparse().requires_grad_(), nn.Linear(3, 2)
    out = torch.sparse.mm(leaf, model(torch.ones(4, 3)))
    gs.Surgery("mgda", model).backward(list(out.mean(0)))  # here


def a_zero_gradient_stops_the_group(_):
    model = nn.Linear(3, 2)
    losses = two_losses(model)
    losses["b"] = 0 * losses["b"]
    gs.backward(losses, model, "mgda")  # here


def an_option_names_a_loss_that_is_not_there_yet(_):
    model = nn.Linear(3, 2)
    surgery = gs.Surgery("mgda", model, protect="memory")
    surgery.accumulate(two_losses(model))  # here


def scores_name_no_modality(_):
    model = TwoEncoders()
    gs.backward(model.losses(), model, "ogm-ge", scores={"x": 2.0, "y": 1.0})  # here


def a_loss_is_at_its_minimum(_):
    model = nn.Linear(3, 2)
    losses = two_losses(model)
    losses["b"] = losses["b"].clamp(max=0)
    surgery = gs.Surgery("famo", model)
    surgery.backward(losses)  # here


def a_learned_weight_has_sunk(_):
    entries = ((("0",), 0.0), (("1",), 50.0))
    state = gs.State.from_state_dict({"numbers": {"log variance": entries}, "tensors": {}})
    gs.get_strategy("uw").weights(np.eye(2), losses=[1.0, 4e4], state=state)  # here


def a_plugin_cannot_be_loaded(monkeypatch):
    class Broken:
        value = "broken:it"

        def load(self):
            raise ImportError("no such module")

    points = {"gradsurgery.strategies": [Broken()]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points.get(group, []))
    monkeypatch.setattr(registry, "_discovered", False)
    gs.strategy_names()  # here


def a_task_plugin_cannot_be_loaded(monkeypatch):
    class Broken:
        value = "broken:it"

        def load(self):
            raise ImportError("no such module")

    points = {plugins.ENTRY_POINTS: [Broken()]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points.get(group, []))
    plugins.load_plugins.cache_clear()
    task_names()  # here


def a_head_alone_decides(_):
    model = TwoEncoders()
    gs.backward(model.losses(), model, "mgda", decide_on=model.audio_head)  # here


CASES = [
    a_head_alone_decides,
    gathered_gradients_are_not_saved,
    joined_losses_cannot_be_told_apart,
    a_leaf_of_another_layout_gets_no_gradient,
    a_zero_gradient_stops_the_group,
    an_option_names_a_loss_that_is_not_there_yet,
    scores_name_no_modality,
    a_loss_is_at_its_minimum,
    a_learned_weight_has_sunk,
    a_plugin_cannot_be_loaded,
    a_task_plugin_cannot_be_loaded,
]


@pytest.mark.parametrize("case", CASES)
def test_a_warning_points_at_the_line_of_the_user(case, monkeypatch):
    with pytest.warns(UserWarning, match=".") as caught:
        case(monkeypatch)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert HERE[caught[0].lineno - 1].endswith("# here")


def test_no_warning_of_the_package_is_left_out(monkeypatch):
    """Every call of `warn` in the package is one that a case above comes by."""
    calls = {
        (str(path), node.lineno)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn"
    }
    reached = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code is errors.warn.__code__:
            reached.add((frame.f_back.f_code.co_filename, frame.f_back.f_lineno))

    for case in CASES:
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sys.setprofile(note)
            try:
                case(patch)
            finally:
                sys.setprofile(None)
    assert {(str(pathlib.Path(file)), line) for file, line in reached} == calls


def test_only_one_function_gives_warnings():
    """`errors.warn`, which finds the line: `warnings.warn` would name one of the package's own."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "warn":
                assert path.name == "errors.py", path

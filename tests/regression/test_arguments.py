"""Arguments in the wrong order, numbers in order, options as text, and the line a warning names."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.compare import (
    Plan,
)


def two_losses(model=None):
    first, second = (model or nn.Linear(3, 2))(torch.ones(3))
    return {"audio": first, "visual": second}


def test_objectives_and_options_are_nearest_without_their_case():
    with pytest.raises(gs.InputError, match="Did you mean 'audio'"):
        gs.backward(two_losses(), strategy="a-gem", objective="AUDIO")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'normalize'"):
        gs.get_strategy("mgda", NORMALIZE="l2")
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'cg-mnist'"):
        Plan.of(["CG_MNIST"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, losses: gs.Surgery(m, "mgda"),
            r"got Linear\. The order is Surgery\('mgda', model\)",
        ),
        (
            lambda m, losses: gs.Surgery(list(m.parameters()), "mgda"),
            r"got list\. The order is Surgery\('mgda', model\)",
        ),
        (
            lambda m, losses: gs.Surgery(m, gs.get_strategy("mgda")),
            r"The order is Surgery\('mgda', model\)",
        ),
        (
            lambda m, losses: gs.Surgery(m),
            r"got Linear\. The order is Surgery\(strategy, model\)\. Known: ",
        ),
        (lambda m, losses: gs.backward(losses, "mgda", m), r"backward\(losses, model, 'mgda'\)"),
        (lambda m, losses: gs.backward(losses, "mgda"), r"backward\(losses, model, 'mgda'\)"),
        (
            lambda m, losses: gs.backward(m, losses),
            r'losses come first, backward\(losses, model, "mgda"\); got Linear',
        ),
        (lambda m, losses: gs.backward(m, losses, "mgda"), "losses come first"),
        (lambda m, losses: gs.backward("mgda", losses, m), "losses come first.*got str"),
        (
            lambda m, losses: gs.backward(list(m.parameters()), losses),
            r"not a leaf.*backward\(losses, model\) takes them first",
        ),
        (lambda m, losses: gs.inspect(m, losses), r"losses come first, inspect\(losses, model\)"),
        (
            lambda m, losses: gs.backward(torch.optim.SGD(m.parameters()), losses),
            "losses come first",
        ),
    ],
)
def test_swapped_arguments_are_said_in_the_right_order(call, message):
    model = nn.Linear(3, 2)
    with pytest.raises(gs.GradSurgeryError, match=message):
        call(model, two_losses(model))
    assert all(p.grad is None for p in model.parameters())


def test_the_first_lines_of_backward_say_that_the_default_is_the_sum():
    opening = " ".join(gs.backward.__doc__.split("Arguments")[0].split())
    assert 'Without a strategy it is "sum"' in opening
    assert 'backward(losses, model, "mgda")' in opening
    model = nn.Linear(3, 2)
    record = gs.backward(two_losses(model), model)
    assert record["audio+visual"].weights.tolist() == [1.0, 1.0]


def by_surgery(model):
    gs.Surgery("a-gem", model, objective="text").backward(two_losses(model))


def by_one_shot(model):
    gs.backward(two_losses(model), model, "a-gem", objective="text")


def by_accumulate(model):
    surgery = gs.Surgery("a-gem", model, objective="text")
    surgery.accumulate(two_losses(model))
    surgery.combine()


def by_state_dict(model):
    surgery = gs.Surgery("sum", model)
    surgery.accumulate(two_losses(model))
    surgery.state_dict()


def by_scores(model):
    gs.Surgery("ogm-ge", model).backward(two_losses(model), scores={"a": 1.0, "b": 2.0})


@torch.enable_grad()
def within_a_decorator(model):
    gs.backward(two_losses(model), model, "a-gem", objective="text")


def by_inner_function(model):
    def step():
        with torch.no_grad(), torch.enable_grad():
            return gs.backward(two_losses(model), model, "a-gem", objective="text")

    return step()


@pytest.mark.parametrize(
    "function",
    [
        by_surgery,
        by_one_shot,
        by_accumulate,
        by_state_dict,
        by_scores,
        within_a_decorator,
        by_inner_function,
    ],
)
def test_warnings_name_the_line_of_the_user_from_every_depth(function):
    with pytest.warns(
        UserWarning, match="no loss is named|not saved|nothing is modulated"
    ) as caught:
        function(nn.Linear(3, 2))
    lines = Path(__file__).read_text().splitlines()
    for warning in caught:
        assert warning.filename == __file__
        assert any(
            word in lines[warning.lineno - 1]
            for word in ("backward(", "accumulate(", "state_dict(")
        )


@pytest.mark.parametrize("place", ["_experiments/train.py", "_contextlib/torch/_dynamo.py"])
def test_warnings_name_files_whose_place_only_resembles_the_package(place):
    file = os.path.dirname(gs.__file__) + place
    code = compile("gs.backward(losses, strategy='a-gem', objective='text')", file, "exec")
    with pytest.warns(UserWarning, match="no loss is named 'text'") as caught:
        exec(code, {"gs": gs, "losses": two_losses()})
    assert caught[0].filename == file


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pcd", {"tau": [0, 0.1, 0.9, 0.9]}),
        ("pcd", {"tau": [0.1]}),
        ("pcd", {"tau": torch.tensor([0, 0.1, 0.9])}),
        ("cr-mogm", {"initial": [1, 1, 5, 5]}),
        ("cr-mogm", {"initial": [1, 1, 5], "base": "pcgrad"}),
        ("cr-mogm", {"initial": [1]}),
    ],
)
def test_numbers_in_order_are_as_many_as_the_losses(name, options):
    model = nn.Linear(2, 2)
    surgery = gs.Surgery(name, model, **options)
    text = "one per loss, the primary's included" if name == "pcd" else "do not fit the objectives"
    with pytest.raises(gs.InputError, match=text):
        surgery.backward(list(model(torch.ones(2))))
    assert model.weight.grad is None
    right = {"pcd": {"tau": [0, 0.1]}, "cr-mogm": {"initial": [1, 5]}}[name]
    gs.Surgery(name, model, **{**options, **right}).backward(list(model(torch.ones(2))))


def test_numbers_in_order_reach_groups_of_some_losses_only():
    trunk, far = nn.Linear(2, 3), nn.Linear(2, 1)
    for name, option in (("pcd", "tau"), ("cr-mogm", "initial")):
        surgery = gs.Surgery(name, [*trunk.parameters(), *far.parameters()], **{option: [0.1] * 3})
        first, second, _ = trunk(torch.ones(2))
        record = surgery.backward([first, far(torch.ones(2)).sum(), second])
        assert len(record["0+2"].weights) == 2


@pytest.mark.parametrize("given", [["warm"], ("warm",), 3, None])
def test_forgetting_what_is_no_name_says_how_to_write_it(given):
    model = nn.Linear(2, 1)
    surgery = gs.Surgery("mgda", model)
    surgery.backward({"warm": model(torch.ones(2)).sum()})
    with pytest.raises(gs.InputError, match=r'as in forget\("warm"\)'):
        surgery.forget(given)
    surgery.forget("warm")

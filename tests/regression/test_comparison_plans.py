"""Comparisons: plans, and tasks that cannot be run."""

import numpy as np
import pytest

import gradsurgery as gs
from gradsurgery.compare import (
    Plan,
    compare,
)
from gradsurgery.tasks import task
from tests.support.toy import no_problem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 2}, r"seeds: give a list, as in \[0, 1\]; got 2"),
        ({"seeds": "01"}, "seeds: give a list"),
        ({"seeds": [0.5]}, "seeds: give a list"),
        ({"lrs": 0.1}, r"lrs: give a list, as in \[0.1, 0.01\]; got 0.1"),
        ({"lrs": ["0.1"]}, "lrs: give a list"),
        ({"tasks": 3}, "tasks: give a list"),
        ({"strategies": None}, "strategies: give a list"),
        ({"epochs": "3"}, "epochs: expected a whole number"),
        ({"threads": 1.5}, "threads: expected a whole number"),
    ],
)
def test_a_plan_of_what_is_no_list_says_to_give_one(options, message):
    with pytest.raises(gs.InputError, match=message):
        Plan.of(**options)


def test_a_plan_takes_any_list_of_numbers_and_a_strategy_alone():
    plan = Plan.of("multimnist", gs.get_strategy("mgda"), np.arange(2), lrs=np.array([0.5]))
    assert (list(plan.strategies), plan.seeds, plan.lrs) == (["mgda"], (0, 1), (0.5,))
    assert all(type(x) is int for x in plan.seeds)


def test_a_task_without_a_problem_or_rows_is_said_before_any_training(toy, tmp_path):
    plan = toy(rows=0)()
    with pytest.raises(gs.InputError, match=r"task 'lines': its training data .* have no rows"):
        compare(plan, tmp_path / "out")
    task("lines", epochs=1, batch=1, lr=0.1, paper="a toy")(no_problem)
    with pytest.raises(gs.InputError, match="task 'lines' returned NoneType: return a"):
        compare(Plan.of(["lines"], ["sum"], [0]), tmp_path / "out")
    assert not (tmp_path / "out").exists()

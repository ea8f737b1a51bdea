"""`compare --check`: what three steps show of a task."""

import itertools

import pytest
import torch

from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_in_terminal, check_task, duration, said
from gradsurgery.tasks import Metric, Task
from tests.support.protocol import figures, losses, two_modalities
from tests.support.toy import problem as tensors

pytestmark = pytest.mark.quick


def checked(strategies=("sum",), seeds=(0,), function=None, primary=None, batch=None, **settings):
    def two(data_root, seed):
        return two_modalities(data_root, seed, **settings)

    made = Task("two", function or two, batch and 3, batch, 0.1, "", None if batch else 6)
    made = Task(**{**vars(made), "primary": primary})
    plan = Plan.of(["multimnist"], strategies, seeds)
    plan = Plan(**{**vars(plan), "tasks": (made,)})
    return check_task(plan, made), plan


def test_a_task_that_is_well_has_its_groups_and_a_time():
    found, plan = checked(["sum", "mgda", "famo"], primary="fused")
    assert found.wrong == found.notes == []
    assert set(found.groups) == {"audio+fused", "face+fused", "audio", "face", "fused"}
    assert 0 < found.seconds < 60
    assert "3 runs, about" in said(found, plan)[-1]
    assert check_in_terminal(plan) == 0
    found.seconds = found.longest = 180.0
    assert said(found, plan, 2)[-1].strip().startswith("with --jobs 2 about 90 s, if each")


COUNT = itertools.count(1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"losses": lambda m, b: {k: v * torch.nan for k, v in losses(m, b).items()}}, "NonFin"),
        ({"evaluate": lambda m, s: {"fused": 1.0}}, "no figure of 'audio'"),
        ({"evaluate": lambda m, s: dict.fromkeys(("fused", "audio", "face", "x"), 1.0)}, "of 'x'"),
        (
            {"evaluate": lambda m, s: dict.fromkeys(("fused", "audio", "face"), float("nan"))},
            "is nan",
        ),
        (
            {"evaluate": lambda m, s: figures(m, two_modalities(None, 0).batches()[0])},
            "validation and test have the same figures",
        ),
        (
            {"losses": lambda m, b: {k: v * next(COUNT) for k, v in losses(m, b).items()}},
            "the same seed gives different numbers",
        ),
        ({"losses": lambda m, b: {"fused": losses(m, b)["fused"]}}, "reached by two losses"),
        ({"primary": "loudness"}, "primary='loudness' is no figure of the task"),
        ({"alone": {"smell": ["nose"]}}, "names the loss 'nose'"),
        ({"strategies": ["agm"], "scores": None}, "agm cannot run: agm takes a measure"),
        ({"strategies": ["krum"], "seeds": [0]}, "krum cannot run"),
    ],
)
def test_what_is_wrong_is_said(settings, message):
    if message == "krum cannot run":
        settings = {**settings, "losses": lambda m, b: dict(list(losses(m, b).items())[:2])}
    found, plan = checked(**settings)
    assert any(message in one for one in found.wrong), found.wrong
    assert check_in_terminal(plan) == 1


def test_equal_tensors_and_seeds_that_change_nothing_are_said():
    found, _ = checked(function=lambda data_root: tensors(better="lower"), batch=8)
    assert "train and test are the same data." in found.wrong
    assert "every seed has the same data" in found.notes[0]
    same = lambda data_root, seed: two_modalities(data_root, 5)  # noqa: E731
    found, _ = checked(seeds=[0, 1], function=same, primary="fused")
    assert found.notes == ["the seeds 0 and 1 give the same batches."]
    found, _ = checked(function=lambda data_root, seed: None)
    assert "return a gradsurgery.tasks.Problem" in found.wrong[0]


def test_figures_of_several_kinds_without_a_primary_one_are_said():
    found, _ = checked()
    assert found.wrong == []
    (note,) = found.notes
    assert note == "Only fused is judged; audio and face are not (declare @task(primary=...))."
    percent = Metric("accuracy", unit="%")
    found, _ = checked(metrics=dict.fromkeys(("fused", "audio", "face"), percent))
    assert found.notes == []  # their mean is judged
    found, _ = checked(function=lambda data_root: tensors(better={"up": "lower"}), batch=8)
    assert "better: no direction is given for the figure of 'down'." in found.wrong


def test_times_as_one_would_say_them():
    assert [duration(x) for x in (3.2, 99, 150, 7200)] == ["3 s", "99 s", "2 min", "2.0 h"]

"""Tasks of the user's own: metrics, what @task takes, problems in the protocol, tasks by name."""

import importlib
import sys

import pytest
import torch

import gradsurgery as gs
from gradsurgery.tasks import Metric, Problem, get_task, task, task_names
from tests.support.protocol import METRICS, two_modalities
from tests.support.toy import problem as tensors

pytestmark = pytest.mark.quick

FILE = """
from gradsurgery.tasks import task
from tests.support.protocol import two_modalities

@task("two-of-mine", steps=5, lr=(0.01, 0.09), primary="fused", delta=1.0)
def mine(data_root, seed):
    '''Two modalities.'''
    return two_modalities(data_root, seed)

def plain(data_root, seed):
    return two_modalities(data_root, seed)
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    task_names()  # registers those that ship, once and for all
    module = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(module, "_tasks", dict(module._tasks))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def test_a_metric_says_its_unit_and_direction():
    assert Metric("accuracy", unit="%").label == "accuracy in %"
    assert Metric("RMSE", higher=False).label == "RMSE"
    assert (Metric("R²").better, Metric("RMSE", higher=False).better) == ("higher", "lower")
    for wrong in (
        lambda: Metric(""),
        lambda: Metric("a", unit=3),
        lambda: Metric("a", higher="lower"),
        lambda: Metric("a", chance="10 %"),
    ):
        with pytest.raises(gs.InputError, match="Metric"):
            wrong()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batches": None}, "batches= is missing; batches= and evaluate= go together"),
        ({"evaluate": None}, "evaluate= is missing"),
        ({"metrics": lambda model, split: {}}, "metrics= says what each of its figures is"),
        ({"metrics": {}}, "metrics= says what"),
        ({"metrics": {"fused": "accuracy"}}, "metrics= says what"),
        ({"train": (torch.ones(1),)}, "not both"),
        ({"alone": {"audio": "audio"}}, "is a list of the names of losses"),
        ({"steps": 0}, "steps: expected a number of steps"),
    ],
)
def test_a_problem_that_is_neither_form_is_an_error(settings, message):
    with pytest.raises(gs.InputError, match=message):
        two_modalities(None, 0, **settings)
    with pytest.raises(gs.InputError, match="losses= is missing"):
        Problem(model=torch.nn.Identity, optimizer=torch.optim.SGD, metrics=METRICS)


def test_a_learning_rate_is_a_range_or_a_number():
    task("ranged", steps=3, lr=(1e-3, 1e-1), delta=0.5)(two_modalities)
    chosen = get_task("ranged")
    assert (chosen.lr, chosen.lr_range, chosen.delta) == (pytest.approx(0.01), (1e-3, 1e-1), 0.5)
    task("one", steps=3, lr=0.1)(two_modalities)
    assert get_task("one").lr == 0.1
    for wrong in (
        {"lr": (0.1, 0.01)}, {"lr": "fast"}, {"lr": (1.0,)}, {"lr": -1}, {"lr": 0.1, "steps": 0},
        {"lr": 0.1, "delta": 0},
    ):  # fmt: skip
        with pytest.raises(gs.InputError, match="task 'wrong'"):
            task("wrong", **{"steps": 3, **wrong})(two_modalities)


def test_a_short_cut_comes_out_in_the_protocol():
    task("short", epochs=2, batch=8, lr=0.1)(lambda data_root: tensors(better="lower"))
    problem = get_task("short").problem(None, 4)
    assert problem.steps == 16
    batch = next(iter(problem.batches()))
    assert [len(part) for part in batch] == [8, 8]
    assert set(problem.evaluate(problem.model(), "test")) == {"up", "down"}
    assert problem.metric_of("up") == Metric("figure", higher=False, chance=1.0)
    assert get_task("short").problem(None, 4, steps=3).steps == 3
    other = next(iter(get_task("short").problem(None, 5).batches()))
    assert not torch.equal(batch[0], other[0])  # the seed gives the order
    task("uncut", steps=2, lr=0.1)(lambda data_root: tensors())
    with pytest.raises(gs.InputError, match="say how they are cut"):
        get_task("uncut").problem()
    task("long", lr=0.1)(two_modalities)
    with pytest.raises(gs.InputError, match="say how long a run is"):
        get_task("long").problem()


def test_a_task_is_found_by_module_and_by_file(tmp_path, monkeypatch):
    (tmp_path / "speech_for_tests.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    chosen = get_task("speech_for_tests:mine")
    assert (chosen.name, chosen.steps, chosen.description) == ("two-of-mine", 5, "Two modalities.")
    assert get_task("speech_for_tests:two-of-mine") is chosen
    assert chosen.problem(None, 3).steps == 5
    with pytest.raises(gs.InputError, match="'plain' is no task; write\n? ?@gradsurgery.tasks"):
        get_task("speech_for_tests:plain")
    with pytest.raises(gs.InputError, match="Did you mean 'mine'"):
        get_task("speech_for_tests:mien")
    with pytest.raises(gs.InputError, match="no module 'speech_fro_tests'.*speech_for_tests"):
        get_task("speech_fro_tests:mine")
    with pytest.raises(gs.InputError, match="write module:function"):
        get_task(":mine")
    (tmp_path / "broken_for_tests.py").write_text("1 / 0")
    with pytest.raises(gs.InputError, match="ZeroDivisionError.*\n.*broken_for_tests.py, line 1"):
        get_task("broken_for_tests:mine")


def test_a_file_with_one_task_is_enough(tmp_path):
    (tmp_path / "alone_for_tests.py").write_text(FILE.replace("two-of-mine", "another-of-mine"))
    assert get_task(str(tmp_path / "alone_for_tests.py")).name == "another-of-mine"


@pytest.mark.exhaustive
def test_the_digits_of_another_seed_are_split_otherwise_and_the_test_digits_are_the_same(
    tmp_path,
):
    from gradsurgery.tasks.digits import load_digits

    first, other = load_digits(None, 0), load_digits(None, 1)
    assert torch.equal(first.test[0], other.test[0])
    assert not torch.equal(first.validation[0], other.validation[0])
    seen = {image.numpy().tobytes() for image in other.test[0]}
    for images, _ in (other.train, other.validation):
        assert not seen & {image.numpy().tobytes() for image in images}


@pytest.mark.exhaustive
def test_a_seed_of_a_task_that_ships_changes_all_but_the_pool_of_its_test_data():
    first, other = (get_task("cg-mnist").problem(None, seed) for seed in (0, 1))
    assert torch.equal(first.test[0], other.test[0])  # gray digits
    assert not torch.equal(first.test[1], other.test[1])  # colours
    assert not torch.equal(first.validation[0], other.validation[0])

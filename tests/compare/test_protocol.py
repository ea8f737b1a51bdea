"""Tasks in the protocol: what is run, which strategies, what is called when, what fails how."""

import importlib
import json
import random

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import BASELINE, Plan, compare, remarks, summarise
from gradsurgery.compare.cell import Problems, run_cell
from gradsurgery.compare.loop import Loop, endless, moved
from gradsurgery.tasks import Metric, Problem, task, task_names
from tests.support.protocol import losses, two_modalities

pytestmark = pytest.mark.quick


@pytest.fixture
def own(monkeypatch):
    """Register the task `two`; what it returns makes a plan of one seed on it."""
    task_names()  # registers those that ship, once and for all
    module = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(module, "_tasks", dict(module._tasks))

    def made(options=None, **settings):
        def two(data_root, seed):
            return two_modalities(data_root, seed, **settings)

        options = {"steps": 6, "lr": (0.01, 0.09), "primary": "fused", **(options or {})}
        task("two", **options)(two)
        return lambda strategies=("sum",), seeds=(0,), **more: Plan.of(
            ["two"], strategies, seeds, **more
        )

    return made


def test_a_run_is_so_many_steps_at_the_geometric_middle_and_its_line_says_what_figures_are(
    own, tmp_path
):
    plan = own()()
    line = compare(plan, tmp_path).runs[0]
    assert (line["steps"], line["lr"], line["primary"]) == (6, pytest.approx(0.03), "fused")
    assert list(line["test"]) == list(line["validation"]) == ["fused", "audio", "face"]
    assert line["metrics"]["face"] == {
        "name": "error", "unit": "", "higher": False, "chance": None,
    }  # fmt: skip
    assert line["better"] == {"fused": "higher", "audio": "higher", "face": "lower"}
    rows = summarise([line], BASELINE)["two"]
    assert rows[0].labels["face"] == "error"
    said = " ".join(remarks({"two": rows}, plan))
    assert "untuned: all strategies at one learning rate" in said
    assert "untuned" not in " ".join(remarks({"two": rows}, own()(lrs=[0.01, 0.02])))


def test_seeds_change_the_data_and_the_same_seed_does_not(own, tmp_path):
    runs = compare(own()(seeds=[0, 1]), tmp_path / "a").runs
    again = compare(own()(seeds=[1]), tmp_path / "b").runs
    assert runs[0]["validation"] != runs[1]["validation"]
    assert runs[1]["test"] == again[0]["test"]
    assert runs[1]["validation"] == again[0]["validation"]


def test_figures_lower_is_better_choose_the_rate_where_they_are_primary(own, tmp_path):
    results = compare(own({"primary": "face"})(lrs=[1e-9, 0.3]), tmp_path)
    low, high = (line["validation"]["face"] for line in results.runs)
    assert high < low
    assert summarise(results, BASELINE)["two"][0].lr == 0.3


NEEDS = ["agm", "ogm-ge", "modo", "sdmgrad", "a-gem(objective='fused')", "dgl(joint='fused')"]


MORE = pytest.mark.exhaustive
NAMES = [*NEEDS, "famo", "mmpareto", "scaled-sum"]
SAMPLED = [name if name in ("agm", "modo") else pytest.param(name, marks=MORE) for name in NAMES]


@pytest.mark.parametrize("name", SAMPLED)
def test_strategies_that_need_more_than_losses_run(own, tmp_path, name):
    results = compare(own()([name]), tmp_path)
    assert "error" not in results.runs[0], results.runs[0]["error"]
    assert "error" not in results.lines[1]["times"][name]


def test_a_measure_of_a_modality_changes_the_encoder_that_has_its_loss(tmp_path):
    problem = two_modalities(None, 0)

    def after_one_step(name, **options):
        torch.manual_seed(0)
        loop = Loop(problem, gs.get_strategy(name, **options), seed=0, lr=1.0, steps=1)
        before = {n: p.detach().clone() for n, p in loop.model.named_parameters()}
        loop.step(endless(problem))
        return {n: before[n] - p.detach() for n, p in loop.model.named_parameters()}

    plain, slowed = after_one_step("sum"), after_one_step("ogm-ge", noise=False, alpha=5.0)
    slower = {
        name
        for name in plain
        if not torch.allclose(plain[name], slowed[name], rtol=1e-4, atol=1e-8)
    }
    # one of the two has the larger score
    assert slower in ({"audio.weight", "audio.bias"}, {"face.weight", "face.bias"})


def test_what_a_task_lacks_is_a_failed_run_that_says_what_to_give(own, tmp_path):
    runs = compare(own(scores=None)(["agm", "sum"]), tmp_path).runs
    assert "give Problem(scores=(model, batch) -> {modality: measure})" in runs[0]["error"]
    assert "error" not in runs[1]
    runs = compare(own(scores=lambda model, batch: {"smell": 1.0})(["agm"]), tmp_path / "b").runs
    assert "scores are given for 'smell', which are no losses" in runs[0]["error"]


def test_famo_sees_the_losses_on_the_same_batch_after_its_step():
    seen = []

    def counted(model, batch):
        found = losses(model, batch)
        seen.append((batch["x"].data_ptr(), found["fused"].item()))
        return found

    problem = two_modalities(None, 0, losses=counted)
    loop = Loop(problem, gs.get_strategy("famo"), seed=0, lr=0.1, steps=2)
    loop.step(endless(problem))
    (first, before), (second, after) = seen
    assert first == second
    assert after != before


def test_the_losses_after_the_step_leave_batch_norm_as_one_forward_does():
    class Normed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.out = torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)

        def forward(self, batch):
            found = self.out(self.norm(batch["x"])).square().mean(0)
            return {"one": found[0], "two": found[1]}

    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    problem = Problem(
        batches=lambda: [{"x": x}],
        losses=lambda model, batch: model(batch),
        model=Normed,
        optimizer=torch.optim.SGD,
        evaluate=lambda model, split: {"one": 0.0, "two": 0.0},
        metrics={"one": Metric("one"), "two": Metric("two")},
    )
    norms = []
    for name in ("famo", "sum"):
        torch.manual_seed(0)
        loop = Loop(problem, gs.get_strategy(name), seed=0, lr=0.1, steps=1)
        loop.step(endless(problem))
        norms.append(loop.model.norm)
    assert norms[0].num_batches_tracked == norms[1].num_batches_tracked == 1
    assert torch.equal(norms[0].running_mean, norms[1].running_mean)


def test_lists_of_losses_are_batches_for_those_that_take_several_and_a_mean_for_others():
    three = lambda model, batch: [losses(model, batch)] * 3  # noqa: E731
    several, one = two_modalities(None, 0, losses=three), two_modalities(None, 0)
    for name in ("modo", "sum"):
        models = []
        for problem in (several, one):
            torch.manual_seed(0)
            loop = Loop(problem, gs.get_strategy(name), seed=0, lr=0.1, steps=1)
            batch = problem.batches()[0]
            record = loop.step(lambda batch=batch: batch)
            models.append([p.detach().clone() for p in loop.model.parameters()])
            assert np.isfinite(list(record.losses.values())).all()
        assert all(torch.allclose(a, b) for a, b in zip(*models, strict=True))


def test_hooks_are_called_with_as_much_as_they_take():
    calls = []
    problem = two_modalities(
        None,
        0,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        after_step=lambda model, batch, surgery, step: calls.append((step, set(batch))),
    )
    loop = Loop(problem, gs.get_strategy("sum"), seed=0, lr=0.4, steps=2)
    draw = endless(problem)
    loop.step(draw)
    loop.step(draw)
    assert calls == [(1, {"x", "y"}), (2, {"x", "y"})]
    assert loop._optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_batches_that_are_none_are_said(own, tmp_path):
    assert "batches() gave no batch" in compare(own(batches=list)(), tmp_path).runs[0]["error"]


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda model, split: {"fused": 1.0}, "no figure of 'audio', no figure of 'face'"),
        (
            lambda model, split: {"fused": 1.0, "audio": 1.0, "face": 1.0, "smell": 1.0},
            "a figure of 'smell', which metrics= does not name",
        ),
        (
            lambda model, split: {"fused": 1.0, "audio": float("nan"), "face": 1.0},
            "the figure of 'audio' on the validation data is nan",
        ),
        (lambda model, split: 50.0, "evaluate gave 50.0"),
        (lambda model, split: {"fused": "x", "audio": 1, "face": 1}, "is no number: 'x'"),
    ],
)
def test_wrong_figures_are_failed_runs(own, tmp_path, evaluate, message):
    results = compare(own(evaluate=evaluate)(), tmp_path)
    assert message in results.runs[0]["error"]
    assert "test" not in results.runs[0]
    for text in results.path.read_text().splitlines():
        json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_run_that_fails_says_at_which_step_and_the_last_loss(own, tmp_path):
    count = []

    def late(model, batch):
        if len(count) == 3:
            raise RuntimeError("the disk is gone")
        count.append(1)
        return losses(model, batch)

    plan = own(losses=late)()
    line = _run_only(plan)
    assert line["error"] == "RuntimeError: the disk is gone"
    assert line["failed_at"]["step"] == 4
    assert 0 < line["failed_at"]["last_loss"] < 10


def _run_only(plan):
    """The line of the plan's first run, without the rounds of step times before it."""
    return run_cell(plan, plan.runs()[0], Problems(plan), lambda *step: None, ())


def test_steps_and_epochs(own, tmp_path):
    assert compare(own()(steps=2), tmp_path).runs[0]["steps"] == 2
    with pytest.raises(gs.InputError, match="task 'two' counts steps; give steps instead"):
        own()(epochs=2)
    with pytest.raises(gs.InputError, match="epochs or steps, not both"):
        Plan.of(["multimnist"], ["sum"], [0], epochs=1, steps=1)
    with pytest.raises(gs.InputError, match="steps: expected 1 or more; got 0"):
        own()(steps=0)


def test_the_random_numbers_of_the_caller_are_left_alone(own, tmp_path):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    compare(own()(), tmp_path)
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[2], torch.get_rng_state())


def test_batches_are_moved_whatever_they_are_nested_in():
    batch = {"x": [torch.ones(2)], "y": (torch.ones(1), "name", 3)}
    there = moved(batch, "meta")
    assert there["x"][0].is_meta
    assert there["y"][0].is_meta
    assert there["y"][1:] == ("name", 3)
    assert moved(batch, None) is batch

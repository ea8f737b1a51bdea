"""Baselines of a task: which there are, and that runs alone train their losses and no others."""

import json

import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import Plan, compare, conclude, summarise
from gradsurgery.compare.baselines import front, loss_names, methods_of
from gradsurgery.compare.figures import trained
from gradsurgery.compare.loop import Loop, endless, seeded
from gradsurgery.compare.methods import alone, control, method_of
from gradsurgery.tasks import task, task_names
from tests.support.protocol import two_modalities

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    import importlib

    task_names()
    module = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(module, "_tasks", dict(module._tasks))
    task("speech", steps=4, lr=(0.01, 0.09), primary="fused")(two_modalities)
    task("plain", steps=4, lr=0.1)(
        lambda data_root, seed: two_modalities(data_root, seed, alone=None)
    )


def methods(plan):
    (found,) = plan.tasks
    problem = found.problem(None, 0)
    return {method.label: method for method in methods_of(plan, found, problem)}


def test_the_baselines_of_a_task():
    plan = Plan.of(["speech"], ["sum", "mgda", "mmpareto"], [0], baselines="auto")
    found = methods(plan)
    fronts = [label for label in found if label.startswith("constant(")]
    assert {label: method.kind for label, method in found.items()} == {
        "sum": "run",
        "mgda": "run",
        "mmpareto": "run",
        "scaled-sum": "control",
        "alone: audio": "alone",
        "alone: joint": "alone",
        "mgda, length=sum": "control",
        "n x mgda": "control",
        **dict.fromkeys(fronts, "control"),
    }
    weights = [dict(found[label].strategy.options)["preference"] for label in fronts]
    assert weights == [{"fused": 1.0, "audio": w, "face": w} for w in (0.5, 2.0, 4.0)]
    assert found["alone: joint"].only == ("fused",)
    for label, method in found.items():  # in another process the label says it all
        again = method_of(plan.strategies, label, method.only)
        assert (again.kind, again.only) == (method.kind, method.only)
        assert again.settings == method.settings
        assert again.strategy.options == method.strategy.options


def test_without_subsets_of_its_own_each_loss_is_alone():
    found = methods(Plan.of(["plain"], ["sum"], [0], baselines="auto"))
    subsets = {label: method.only for label, method in found.items() if method.only}
    assert subsets == {f"alone: {name}": (name,) for name in ("fused", "audio", "face")}
    assert loss_names(two_modalities(None, 0)) == ["fused", "audio", "face"]
    assert list(methods(Plan.of(["plain"], ["sum"], [0]))) == ["sum"]
    assert Plan.of(["plain"], ["sum"], [0], tune=True).baselines == "auto"


def test_fronts_of_more_and_fewer_losses():
    assert front(["a"], None) == []
    assert front(["a", "b"], None) == [{"a": 1.0, "b": w} for w in (0.25, 0.5, 2.0, 4.0)]
    assert front(["a", "b", "c"], None)[1] == {"a": 1.0, "b": 4.0, "c": 1.0}
    assert front(list("abcdefg"), None) == []
    assert len(front(list("abcdefg"), "d")) == 3


def test_n_times_a_strategy_is_its_direction_as_often_as_there_are_objectives():
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    plain = gs.get_strategy("mgda")(list(rows))
    assert torch.allclose(control("n x mgda").strategy(list(rows)), 3 * plain)
    assert control("n x mgda").strategy.inputs == gs.get_strategy("mgda").inputs
    model = torch.nn.Linear(3, 1, bias=False)
    surgery = gs.Surgery(control("n x mgda").strategy, model)
    surgery.backward({str(i): (model.weight * row).sum() for i, row in enumerate(rows)})
    assert torch.allclose(model.weight.grad[0], 3 * plain)


def test_a_control_at_the_length_of_the_sum_has_it():
    def direction(method):
        problem = two_modalities(None, 0)
        with seeded(0):
            loop = Loop(problem, method.strategy, seed=0, lr=0.0, steps=1, settings=method.settings)
            loop.step(endless(problem))
        encoder = loop.model.audio
        return torch.cat([encoder.weight.grad.flatten(), encoder.bias.grad])

    total, matched, plain = map(direction, map(control, ("sum", "mgda, length=sum", "mgda")))
    assert plain.norm() < 0.9 * total.norm()
    assert torch.allclose(matched.norm(), total.norm())
    assert torch.allclose(matched / matched.norm(), plain / plain.norm(), atol=1e-5)


def test_a_run_alone_trains_its_losses_and_no_others(tmp_path):
    """The heads of other losses stay as they were made."""
    problem, method = two_modalities(None, 0), alone("audio", ["audio"])
    with seeded(0):
        loop = Loop(problem, method.strategy, seed=0, lr=0.1, steps=4, only=method.only)
        before = {name: x.detach().clone() for name, x in loop.model.named_parameters()}
        draw = endless(problem)
        for _ in range(4):
            record = loop.step(draw)
    after = dict(loop.model.named_parameters())
    moved = {name for name, x in after.items() if not torch.equal(x, before[name])}
    assert moved == {"audio.weight", "audio.bias", "heads.audio.weight", "heads.audio.bias"}
    assert list(record.losses) == ["audio"]
    assert loop.losses == ("fused", "audio", "face")


def test_rows_of_runs_alone_have_no_figures_of_heads_that_are_not_trained(tmp_path):
    plan = Plan.of(["speech"], ["sum"], [0, 1], baselines="auto")
    results = compare(plan, tmp_path)
    rows = [line for line in results.lines if line["kind"] == "alone"]
    assert [(row["strategy"], row["only"], row["seed"]) for row in rows] == [
        (f"alone: {name}", [loss], seed)
        for seed in (0, 1)
        for name, loss in (("audio", "audio"), ("joint", "fused"))
    ]
    for row in rows:
        (loss,) = row["only"]
        for split in ("validation", "test"):
            assert {n for n, x in row[split].items() if x is not None} == {loss}
            assert set(row[split]) == {"fused", "audio", "face"}
    controls = {line["strategy"] for line in results.lines if line["kind"] == "control"}
    assert {"scaled-sum", "n x mgda"} < controls
    assert all("only" not in line for line in results.runs)
    assert not any("error" in line for line in results.cells)
    assert len(compare(plan, tmp_path).lines) == len(results.lines)
    (conclusion,) = conclude(results).values()  # null figures are no failures
    assert {one.kind for one in conclusion.trained} == {"run", "control", "alone"}
    assert not any(one.failed for one in conclusion.trained)
    assert set(conclusion.gains["sum"].by_seed) == {0, 1}


def test_which_figures_a_run_on_some_losses_has():
    names = ("fused", "audio", "mean")
    assert trained({"audio"}, {"fused", "audio"})(names) == ["audio"]
    assert trained({"other"}, {"fused", "audio", "other"})(names) == ["mean"]
    assert trained({"other"}, {*names, "other"})(names) == []


def test_each_optimizer_has_cells_of_its_own(tmp_path):
    plan = Plan.of(["plain"], ["sum"], [0], optimizer=["sgd", "adam"])
    runs = compare(plan, tmp_path).runs
    assert [run["optimizer"] for run in runs] == ["sgd", "adam"]
    assert runs[0]["test"] != runs[1]["test"]
    assert len({run["key"] for run in runs}) == 2
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])["optimizer"] == [
        "sgd",
        "adam",
    ]
    again = compare(plan, tmp_path)
    assert len(again.runs) == 2
    summary = summarise(again, "sum")
    assert {task: rows[0].accuracies for task, rows in summary.items()} == {
        f"plain, {run['optimizer']}": {name: [x] for name, x in run["test"].items()} for run in runs
    }
    assert all(rows[0].step_time == 1 for rows in summary.values())
    assert set(conclude(again)) == set(summary)


@pytest.mark.exhaustive
def test_a_tuned_comparison_with_baselines_chooses_a_rate_for_each(tmp_path):
    plan = Plan.of(["speech"], ["sum", "mgda"], [0], steps=1, tune=True)
    results = compare(plan, tmp_path)
    choices = {line["strategy"]: line for line in results.lines if line["kind"] == "choice"}
    assert set(choices) == set(methods(plan))
    assert "'audio'" in choices["alone: audio"]["rule"]
    assert "'fused'" in choices["alone: joint"]["rule"]
    for line in results.cells:
        if line["kind"] != "tune":
            assert line["lr"] == choices[line["strategy"]]["lr"]
    kinds = {line["strategy"]: line["kind"] for line in results.cells if line["kind"] != "tune"}
    assert kinds == {label: method.kind for label, method in methods(plan).items()}


def test_controls_that_are_asked_for_train_beside_the_strategies():
    label = "mgda, guard=correct"
    plan = Plan.of(["speech"], ["sum", "mgda"], [0], controls=[label, "n x mgda"])
    found = methods(plan)
    assert {name: method.kind for name, method in found.items()} == {
        "sum": "run",
        "mgda": "run",
        label: "control",
        "n x mgda": "control",
    }
    assert found[label].guard == method_of(plan.strategies, label).guard == "correct"
    with pytest.raises(gs.UnknownNameError, match="mgda"):
        Plan.of(["speech"], ["sum"], [0], controls=["mgad, guard=correct"])
    with pytest.raises(gs.InputError, match="not known yet"):
        plan.runs()


def test_a_guarded_run_corrects_its_steps_after_the_optimizer():
    problem = two_modalities(None, 0, optimizer=lambda p, lr: torch.optim.Adam(p, lr, (0.95, 0.9)))
    method = control("sum, guard=correct")
    with seeded(0):
        loop = Loop(
            problem, method.strategy, seed=0, lr=0.05, steps=40, settings=method.settings,
            guard=method.guard,
        )  # fmt: skip
        draw = endless(problem)
        changed = [loop.step(draw) for _ in range(40)]
    groups = [g for record in changed for g in record.values() if len(g.objectives) > 1]
    assert any(group.corrected is not None for group in groups)
    assert not any(group.risen for group in groups)

"""Comparisons: what is run, what is written down, what is reported, and that test data choose
nothing.
"""

import io
import json

import pytest
import torch
from rich.console import Console

import gradsurgery as gs
from gradsurgery.compare import (
    BASELINE,
    Plan,
    compare,
    parse_seeds,
    parse_strategy,
    plot,
    read_results,
    remarks,
    split_list,
    summarise,
    table,
)
from gradsurgery.tasks import ACCURACY, Problem, task, task_names

pytestmark = pytest.mark.quick


def losses(model, batch):
    error = (model(batch[0]) - batch[1]).pow(2).mean(0)
    return {"up": error[0], "down": error[1]}


def metrics(model, examples):
    return {name: 100 - 100 * loss.item() for name, loss in losses(model, examples).items()}


def problem(noise=0.0):
    """One weight, two targets that pull it apart, in data of which `noise` shows only at test."""
    x = torch.linspace(-1, 1, 64)[:, None]
    data, test = ((x, torch.cat([2 * x, -x], 1) + shift) for shift in (0.0, noise))
    return Problem(
        train=data,
        validation=data,
        test=test,
        model=lambda: torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 2)),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        losses=losses,
        metrics=metrics,
        chance=10.0,
    )


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    import importlib

    task_names()  # registers those that ship, once and for all
    module = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(module, "_tasks", dict(module._tasks))
    task("lines", epochs=3, batch=8, lr=0.1, paper="a toy")(lambda data_root=None: problem())


def test_what_is_run_and_written(tmp_path):
    plan = Plan.of(["lines"], ["sum", "mgda", "cagrad(c=1.0)"], [0, 3], epochs=2)
    results = compare(plan, tmp_path / "out")
    assert read_results(results.path) == results.lines
    kinds = [line["kind"] for line in results.lines]
    assert kinds == ["setup", "timing"] + 6 * ["run"]
    setup, timing, *runs = results.lines
    assert setup["versions"]["torch"] == torch.__version__
    assert setup["machine"]["cores"]
    assert setup["strategies"]["cagrad(c=1.0)"] == {
        "name": "cagrad",
        "options": dict(plan.strategies["cagrad(c=1.0)"].options),
    }
    assert setup["strategies"]["cagrad(c=1.0)"]["options"]["c"] == 1.0
    assert set(timing["times"]) == {"sum", "mgda", "cagrad(c=1.0)"}
    assert all(
        times["low"] <= times["median"] <= times["high"] for times in timing["times"].values()
    )
    assert [(run["strategy"], run["seed"]) for run in runs] == [
        (s, seed) for seed in (0, 3) for s in plan.strategies
    ]
    assert all(run["steps"] == 16 for run in runs)
    assert all(
        set(run["test"]) == {"up", "down"} and 0 <= run["conflict_rate"]["down+up"] <= 1
        for run in runs
    )


def test_the_same_plan_gives_the_same_numbers(tmp_path):
    plan = Plan.of(["lines"], ["sum", "pcgrad"], [1])
    torch.manual_seed(5)
    first, state = compare(plan, tmp_path / "a"), torch.get_rng_state()
    torch.manual_seed(6)
    second = compare(plan, tmp_path / "b")
    assert [line["test"] for line in first.runs] == [line["test"] for line in second.runs]
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone


def test_all_strategies_start_alike(tmp_path):
    """With a learning rate too small to move anything every strategy has the accuracy of the same
    initial model.
    """
    results = compare(Plan.of(["lines"], ["sum", "mgda", "random"], [0], lrs=[1e-30]), tmp_path)
    assert len({json.dumps(line["test"]) for line in results.runs}) == 1


def test_conflicts_are_those_of_inspect(tmp_path):
    """Opposite pulls on the shared weight are a conflict at every step; on a task without any the
    rate is 0.
    """

    def pulled(sign):
        x = torch.ones(16, 1)

        def losses(model, batch):
            out = model(batch[0]).mean()
            return {"one": out, "other": sign * out}

        return lambda data_root=None: Problem(
            (x,), (x,), (x,), lambda: torch.nn.Linear(1, 1),
            lambda p, lr: torch.optim.SGD(p, lr=lr), losses,
            lambda model, examples: {"one": 50.0, "other": 50.0}, 10.0,
        )  # fmt: skip

    for name, sign in (("apart", -1.0), ("together", 1.0)):
        task(name, epochs=2, batch=4, lr=0.1, paper="a toy")(pulled(sign))
    summary = summarise(
        compare(Plan.of(["apart", "together"], ["sum"], [0]), tmp_path).lines, BASELINE
    )
    assert summary["apart"][0].conflict_rate == 100
    assert summary["together"][0].conflict_rate == 0


def test_learning_rates_are_chosen_on_validation_data(tmp_path):
    task("misleading", epochs=3, batch=8, lr=0.1, paper="a toy")(
        lambda data_root=None: problem(noise=1.7)
    )
    results = compare(Plan.of(["misleading"], ["sum"], [0, 1], lrs=[1e-3, 0.05]), tmp_path)
    mean = {}
    for part in ("validation", "test"):
        for lr in (1e-3, 0.05):
            values = [v for line in results.runs if line["lr"] == lr for v in line[part].values()]
            mean[part, lr] = sum(values) / len(values)
    assert mean["validation", 0.05] > mean["validation", 1e-3]
    row = summarise(results.lines, BASELINE)["misleading"][0]
    assert row.lr == 0.05
    assert sum(row.accuracies["up"] + row.accuracies["down"]) / 4 == pytest.approx(
        mean["test", 0.05]
    )


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path):
    task("explodes", epochs=9, batch=8, lr=1e18, paper="a toy")(lambda data_root=None: problem())
    plan = Plan.of(["explodes", "lines"], ["sum", "mgda"], [0])
    results = compare(plan, tmp_path)
    assert [("error" in line) for line in results.runs] == [True, True, False, False]
    assert "NonFiniteError" in results.runs[0]["error"]
    assert "'up'" in results.runs[0]["error"]
    summary = summarise(results.lines, BASELINE)
    assert summary["explodes"][0].seeds == ()
    text = shown(summary, plan)
    assert [line.split()[:2] for line in text.splitlines() if " failed " in line] == [
        ["sum", "failed"],
        ["mgda", "failed"],
    ]
    assert "failed: explodes, mgda, seed 0" in text
    assert plot(summary, tmp_path / "plot.png").stat().st_size > 5000


def shown(summary, plan, width=80):
    console = Console(file=io.StringIO(), width=width)
    for name, rows in summary.items():
        console.print(table(name, rows, tuned=len(plan.lrs) > 1))
    for note in remarks(summary, plan):
        console.print(note, markup=False)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


def test_tables_have_means_stds_and_marks(tmp_path):
    plan = Plan.of(["lines"], ["sum", "mgda", "scaled-sum"], [0, 1], lrs=[0.1, 0.05])
    results = compare(plan, tmp_path)
    assert all(
        f"\n {name} " in shown(summarise(results.lines, BASELINE), plan) for name in plan.strategies
    )
    plan = Plan.of(["lines"], ["sum", "mgda"], [0, 1])
    results = compare(plan, tmp_path / "one")
    summary = summarise(results.lines, BASELINE)
    text = shown(summary, plan)
    row = summary["lines"][0]
    assert f"{row.mean('up'):.1f} ± {row.std('up'):.1f}" in text
    assert row.std("up") == pytest.approx(
        abs(row.accuracies["up"][0] - row.accuracies["up"][1]) / 2**0.5
    )
    assert "1.00 x" in text
    assert "mgda (convex)" in text
    less = [
        line
        for line in results.lines
        if (line["kind"], line.get("seed"), line.get("strategy")) != ("run", 1, "mgda")
    ]
    assert "lines, mgda: 1 of 2 seeds" in shown(summarise(less, BASELINE), plan)
    both = {"better": {"up": "higher", "down": "higher"}, "figure": ACCURACY}
    given = {"test": {"up": 11.0, "down": 90.0}, **both}
    low = [{**line, **given} if line["kind"] == "run" else line for line in results.lines]
    assert summarise(low, BASELINE)["lines"][0].at_chance == ("up",)
    assert "no better than guessing in up" in shown(summarise(low, BASELINE), plan)


def test_results_are_gone_on_with_never_overwritten_and_torn_lines_are_left_out(tmp_path):
    plan = Plan.of(["lines"], ["sum"], [0], epochs=1)
    results = compare(plan, tmp_path)
    # the same plan goes on, with nothing left to do
    assert compare(plan, tmp_path).lines == results.lines == read_results(tmp_path)
    with pytest.raises(gs.InputError, match="already holds results, of another plan"):
        compare(Plan.of(["lines"], ["sum"], [1], epochs=1), tmp_path)
    with results.path.open("a") as file:
        file.write('{"kind": "ru')
    assert read_results(results.path) == results.lines
    results.path.write_text('{"kind": "ru\n' + results.path.read_text())
    with pytest.raises(gs.InputError, match="line 1"):
        read_results(results.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(gs.InputError, match="cannot write"):
        compare(plan, tmp_path / "file" / "out")


def test_an_interruption_keeps_what_is_done(tmp_path):
    class Stops:
        runs = 0

        def timing(self, task, rounds): ...
        def timed(self): ...
        def stepped(self, step, steps, loss): ...
        def finished(self, run, line): ...
        def started(self, run):
            self.runs += 1
            if self.runs == 3:
                raise KeyboardInterrupt

    kept = []
    with pytest.raises(KeyboardInterrupt):
        compare(Plan.of(["lines"], ["sum", "mgda"], [0, 1]), tmp_path, Stops(), kept.append)
    assert len(read_results(kept[0].path)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["line"]}, "Did you mean 'lines'"),
        ({"strategies": ["mdga"]}, "Did you mean 'mgda'"),
        ({"strategies": ["cagrad(k=1)"]}, "unknown option 'k'"),
        ({"strategies": ["cagrad(1.0)"]}, "by name"),
        ({"strategies": ["cagrad(c=open('x'))"]}, "is no value; write a number or a quoted string"),
        ({"strategies": ["cagrad(c=-1)"]}, "c is a number at least 0; got -1"),
        ({"strategies": ["cagrad(c='x')"]}, "c is a number at least 0; got 'x'"),
        ({"strategies": ["mgda(normalize=l2)"]}, "normalize='l2'"),
        ({"strategies": ["cagrad(c=1"]}, "write a name"),
        ({"strategies": []}, "at least one"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [-1]}, "seeds are 0 or more"),
        ({"lrs": [0.0]}, "positive"),
        ({"epochs": 0}, "1 or more"),
    ],
)
def test_plans_that_make_no_sense(arguments, message):
    with pytest.raises(gs.GradSurgeryError, match=message):
        Plan.of(**{"tasks": ["lines"], "strategies": ["sum"], "seeds": [0], **arguments})


def test_parsing():
    assert parse_strategy("mgda")[0] == "mgda"
    label, strategy = parse_strategy("mgda(normalize='loss+', solver=\"active-set\")")
    assert dict(strategy.given) == {"normalize": "loss+", "solver": "active-set"}
    assert parse_strategy(label)[1] == strategy
    bound = gs.get_strategy("cagrad", c=1.0)
    assert parse_strategy(bound) == ("cagrad(c=1.0)", bound)
    assert split_list(["sum, mgda(normalize='l2', solver='auto'),", "cagrad"]) == [
        "sum",
        "mgda(normalize='l2', solver='auto')",
        "cagrad",
    ]
    assert parse_seeds(["4"]) == [0, 1, 2, 3]
    for wrong in ([""], ["a"], ["0"], ["-1"], ["1.5"]):
        with pytest.raises(gs.InputError, match="seeds:"):
            parse_seeds(wrong)

"""Comparisons: figures of both directions, figures that are no means, and runs that failed."""

import json
import math

import pytest

import gradsurgery as gs
from gradsurgery.compare import (
    BASELINE,
    Plan,
    compare,
    read_results,
    remarks,
    summarise,
    table,
)
from tests.support.toy import problem, rmse


def row(results):
    return summarise(results.lines, BASELINE)["lines"][0]


@pytest.mark.parametrize(
    "settings", [{"better": "lower"}, {"better": {"up": "lower", "down": "lower"}}, {}]
)
def test_where_lower_is_better_the_learning_rate_with_the_lowest_figure_is_taken(
    toy, tmp_path, settings
):
    plan = toy(**settings)(lrs=[1e-6, 0.1])
    results = compare(plan, tmp_path)
    figures = {line["lr"]: sum(line["validation"].values()) for line in results.runs}
    assert figures[0.1] < figures[1e-6]
    assert row(results).lr == row_of_file(tmp_path).lr == 0.1
    said = " ".join(remarks(summarise(results.lines, BASELINE), plan))
    assert ("does not say whether its figures are better higher or lower" in said) == (not settings)


def row_of_file(folder):
    return summarise(read_results(folder), BASELINE)["lines"][0]


def test_figures_of_both_directions_are_not_added_up(toy, tmp_path):
    """A large figure that is better lower, and a small one that is better higher: both are best at
    the same rate.
    """

    def metrics(model, examples):
        found = rmse(model, examples)
        return {"up": 1000 * found["up"], "down": -found["down"]}

    results = compare(
        toy(metrics=metrics, better={"up": "lower", "down": "higher"})(lrs=[1e-6, 0.1]), tmp_path
    )
    assert row(results).lr == 0.1


def test_a_figure_that_is_no_better_than_guessing_is_marked_in_both_directions(toy, tmp_path):
    for better, chance, marked in (
        ("lower", 1e9, ()),
        ("lower", 0.0, ("up", "down")),
        ("higher", 0.0, ()),
        ("higher", 1e9, ("up", "down")),
    ):
        results = compare(toy(better=better, chance=chance)(), tmp_path / f"{better} {chance}")
        assert row(results).at_chance == marked


def test_directions_that_make_no_sense_are_errors(toy, tmp_path):
    with pytest.raises(gs.InputError, match="Did you mean 'lower'"):
        problem(better="min")
    with pytest.raises(gs.InputError, match="at_once: expected a number of examples"):
        problem(at_once=0)
    results = compare(toy(better={"up": "lower"})(), tmp_path)
    assert "no direction is given for the figure of 'down'" in results.runs[0]["error"]


def r2(model, examples):
    x, y = examples
    error, spread = (model(x) - y).pow(2).sum(0), (y - y.mean(0)).pow(2).sum(0)
    return dict(zip(("up", "down"), (1 - error / spread).tolist(), strict=True))


def test_figures_that_are_no_means_are_taken_over_the_whole_test_set(toy, tmp_path):
    """R² over parts of 512 sorted examples is far from R² over all 2,000 of them."""
    given = []

    def metrics(model, examples):
        given.append((len(examples[0]), r2(model, examples)))
        return given[-1][1]

    results = compare(toy(metrics=metrics, rows=2000, better="higher")(epochs=1), tmp_path)
    assert {count for count, _ in given} == {2000}
    assert results.runs[0]["test"] == given[-1][1]


def test_figures_that_are_means_may_be_taken_in_parts(toy, tmp_path):
    sizes = []

    def share(model, examples):
        sizes.append(len(examples[0]))
        return {name: (examples[0] > 0.5).float().mean().item() for name in ("up", "down")}

    results = compare(
        toy(metrics=share, rows=2000, at_once=768, better="higher")(epochs=1), tmp_path
    )
    assert sizes == 2 * [768, 768, 464]
    assert results.runs[0]["test"]["up"] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_runs_whose_figures_are_not_finite_have_failed(toy, tmp_path, figure):
    plan = toy(metrics=lambda model, examples: {"up": 50.0, "down": figure}, better="higher")()
    results = compare(plan, tmp_path)
    assert f"the figure of 'down' on the validation data is {figure}" in results.runs[0]["error"]
    assert "test" not in results.runs[0]
    assert row(results).seeds == ()
    for line in results.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize(("better", "sign"), [("higher", -1.0), ("lower", 1.0)])
def test_a_rate_whose_runs_fail_is_not_the_best_one(toy, tmp_path, better, sign):
    """Negative figures, or figures that are better low: a failed run is worse than all of them."""
    metrics = lambda model, examples: {name: sign * x for name, x in rmse(model, examples).items()}  # noqa: E731
    results = compare(toy(metrics=metrics, better=better)(lrs=[1e30, 0.1]), tmp_path)
    assert ["error" in line for line in results.runs] == [True, False]
    assert row(results).lr == 0.1
    assert row(results).seeds == (0,)


@pytest.mark.parametrize(
    ("better", "figure", "chance", "given", "marked"),
    [
        ("higher", "AUC", 0.5, (1.0, 1.0), False),
        ("higher", "AUC", 0.5, (0.4, 0.9), False),  # the mean over seeds decides
        ("higher", "AUC", 0.5, (0.4, 0.5), True),
        ("lower", "RMSE", 1.0, (1.1, 0.5), False),
        ("lower", "RMSE", 1.0, (1.1, 1.0), True),
        ("higher", "accuracy in %", 10.0, (15.0, 90.0), True),  # within the margin of 64 examples
        ("higher", "accuracy in %", 10.0, (40.0, 90.0), False),
        (None, "AUC", 0.5, (0.1, 0.2), False),
        (None, "accuracy in %", 10.0, (1.0, 2.0), False),
    ],
)
def test_only_an_accuracy_needs_a_margin_above_guessing(better, figure, chance, given, marked):
    lines = [run_line(seed, {"up": x}) for seed, x in enumerate(given)]
    lines = [{**line, "better": better and {"up": better}} for line in lines]
    lines = [{**line, "figure": figure, "chance": chance} for line in lines]
    assert summarise(lines, BASELINE)["lines"][0].at_chance == (("up",) if marked else ())


def run_line(seed, test, **more):
    line = {"kind": "run", "task": "lines", "strategy": "sum", "seed": seed, "lr": 0.1, "epochs": 1}
    line |= {"chance": 0.0, "test_examples": 64, "better": None, "figure": "AUC"}
    return line | {"validation": test, "test": test, "conflict_rate": {}} | more


@pytest.mark.parametrize("late", [{"up": 1.0}, {}, None, {"up": 1.0, "down": 1.0, "left": 1.0}])
def test_a_run_without_a_figure_of_the_others_has_failed(toy, tmp_path, late):
    calls = []

    def metrics(model, examples):
        calls.append(1)
        return {"up": 1.0, "down": 2.0} if len(calls) <= 2 else late

    toy(metrics=metrics)
    plan = Plan.of(["lines"], ["sum"], [0, 1], epochs=1)
    results = compare(plan, tmp_path)
    assert "InputError: metrics gave" in results.runs[1]["error"]
    for summary in (summarise(results, BASELINE), summarise(read_results(tmp_path), BASELINE)):
        assert summary["lines"][0].seeds == (0,)
        assert summary["lines"][0].accuracies == {"up": [1.0], "down": [2.0]}
        assert "metrics gave" in summary["lines"][0].errors[0]
        table("lines", summary["lines"])


@pytest.mark.parametrize("less", [{"up": 1.0}, {}])
def test_a_folder_with_runs_without_a_figure_is_read_all_the_same(tmp_path, less):
    lines = [run_line(0, {"up": 1.0, "down": 2.0}), run_line(1, less)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = read_results(tmp_path)
    row = summarise(read, BASELINE)["lines"][0]
    assert (row.seeds, row.accuracies) == ((0,), {"up": [1.0], "down": [2.0]})
    assert "seed 1, lr 0.1: InputError: it has figures of" in row.errors[0]
    assert read == lines  # the caller's own stay as they were
    del read[0]["strategy"]
    with pytest.raises(gs.InputError, match="line 1 has no 'strategy'"):
        summarise(read, BASELINE)


def test_a_summary_is_made_of_what_compare_returned(toy, tmp_path):
    results = compare(toy()(), tmp_path)
    assert summarise(results, BASELINE) == summarise(results.lines, BASELINE)

"""The search of learning rates: where it goes, what it chooses, and that a kill changes nothing."""

import itertools
import json
import math

import pytest

import gradsurgery as gs
from gradsurgery.compare import Plan, compare, read_results, summarise
from gradsurgery.compare.tuning import FACTOR, MOST, SEEDS, Search
from gradsurgery.tasks import task, task_names
from tests.compare import tuned_task

pytestmark = pytest.mark.quick
CHOICE = {
    *("kind", "task", "strategy", "optimizer", "lr", "rates", "figures", "edge", "rule"),
    *("seeds", "frequency"),
}


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    import importlib

    task_names()
    module = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(module, "_tasks", dict(module._tasks))


def row(rate, seed, figure, better="higher"):
    """What a search reads of a row; a figure of None is a run that diverged."""
    line = {"lr": rate, "seed": seed, "primary": "fused", "better": {"fused": better}}
    line["metrics"] = {"fused": {"name": "score", "unit": "", "higher": better == "higher"}}
    if figure is None:
        return {"lr": rate, "seed": seed, "error": "NonFiniteError: the loss is nan."}
    return {**line, "validation": {"fused": figure}}


def searched(figure, better="higher", middle=0.1):
    """The search of a rate whose figure is `figure(rate, seed)`."""
    search = Search(middle)
    todo = list(search.rates)
    while todo:
        more = []
        for rate in todo:
            for seed in SEEDS:
                more += search.add(row(rate, seed, figure(rate, seed), better))
        todo = more
    assert search.done
    return search


def test_the_first_rates_are_six_around_the_middle_and_no_coarser_than_half_as_much_again():
    rates = Search(0.1).rates
    assert len(rates) == 6
    assert math.isclose(math.prod(rates) ** (1 / 6), 0.1, rel_tol=1e-5)
    assert all(b / a <= FACTOR + 1e-4 for a, b in itertools.pairwise(rates))
    assert FACTOR == 1.5


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize(("best", "count"), [(0.1, 6), (0.3, 7), (0.03, 7), (0.6, 9)])
def test_rates_are_added_beside_the_best_until_it_is_inside(best, count, better):
    sign = 1 if better == "lower" else -1
    search = searched(lambda rate, seed: sign * abs(math.log(rate / best)), better)
    assert len(search.rates) == count
    assert search.edge is None
    nearest = min(search.rates, key=lambda rate: abs(math.log(rate / best)))
    assert search.best() == nearest
    assert search.rates[0] < search.best() < search.rates[-1]


@pytest.mark.parametrize(("best", "edge"), [(1e-9, "low"), (1e9, "high")])
def test_a_best_that_stays_at_the_edge_is_flagged_after_twelve(best, edge):
    search = searched(lambda rate, seed: -abs(math.log(rate / best)))
    assert (len(search.rates), search.edge) == (MOST, edge)
    assert search.best() == search.rates[0 if edge == "low" else -1]
    assert search.choice()["edge"] == edge


def test_a_rate_at_which_one_run_fails_is_below_all_others():
    """The figure rises with the rate; above 0.1 one of three seeds diverges."""
    search = searched(lambda rate, seed: None if rate > 0.1 and seed == SEEDS[1] else rate)
    assert search.best() == max(rate for rate in search.rates if rate < 0.1)
    assert search.edge is None
    choice = search.choice()
    assert choice["figures"][str(search.rates[-1])] == search.rates[-1]  # of those that ended


def test_where_all_of_the_first_diverge_the_search_goes_down():
    search = searched(lambda rate, seed: None if rate > 0.02 else rate)
    assert search.best() < 0.02 < search.rates[1] * FACTOR
    everywhere = searched(lambda rate, seed: None)
    assert (len(everywhere.rates), everywhere.edge, everywhere.best()) == (MOST, "low", 0.1)
    assert set(everywhere.choice()["figures"].values()) == {None}


def test_where_all_fail_for_another_reason_nothing_more_is_tried():
    search, more = Search(0.1), []
    for rate in search.rates:
        for seed in SEEDS:
            more += search.add({"lr": rate, "seed": seed, "error": "InputError: no scores."})
    assert (search.done, more, search.edge) == (True, [], None)
    assert "no run gave a figure" in search.choice()["rule"]


def test_equal_figures_are_no_reason_to_go_on():
    search = searched(lambda rate, seed: 100.0)
    assert len(search.rates) == 6
    assert search.best() == search.rates[2]


def test_the_frequency_is_that_over_all_resamples_of_the_tuning_seeds():
    """One seed of three prefers another rate by a little more than the others together."""

    def figure(rate, seed):
        liked = rates[3] if seed == SEEDS[0] else rates[2]
        return 1.0 if rate == liked else 0.0

    rates = Search(0.1).rates
    choice = searched(figure).choice(task="t", strategy="s", optimizer=None)
    assert choice["lr"] == rates[2]
    # of 27 resamples the first seed is at least twice in 1 + 3·2
    assert choice["frequency"][str(rates[3])] == pytest.approx(7 / 27)
    assert sum(choice["frequency"].values()) == pytest.approx(1)
    assert set(choice) == CHOICE


def test_a_tuned_comparison_reports_at_the_rate_that_is_best_on_seeds_of_its_own(tmp_path):
    target = f"{tuned_task.__name__}:way"
    plan = Plan.of([target], ["sum"], [0, 1], tune=True, baselines="none")
    results = compare(plan, tmp_path)
    tuned = [line for line in results.lines if line["kind"] == "tune"]
    (choice,) = (line for line in results.lines if line["kind"] == "choice")
    assert set(choice) == CHOICE
    assert (choice["task"], choice["strategy"], choice["optimizer"]) == ("way", "sum", None)
    assert choice["rates"] == sorted({line["lr"] for line in tuned})
    assert {line["seed"] for line in tuned} == set(SEEDS) == set(choice["seeds"])
    assert len(tuned) == 3 * len(choice["rates"]) > 18
    assert all(line["test"] is None and line["validation"] for line in tuned)
    assert "1000, 1001, 1002" in choice["rule"]
    assert abs(math.log(choice["lr"] / 0.2)) <= math.log(FACTOR) / 2
    assert [(run["seed"], run["lr"]) for run in results.runs] == [
        (0, choice["lr"]),
        (1, choice["lr"]),
    ]
    assert all(set(run["test"]) == {"a", "b"} for run in results.runs)
    (summary,) = summarise(results.lines, "sum")["way"]
    assert (summary.lr, summary.seeds) == (choice["lr"], (0, 1))
    assert read_results(tmp_path) == results.lines


def told(folder):
    """All that does not depend on the time, in one order."""
    fields = ("kind", "task", "strategy", "optimizer", "seed", "lr", "test", "validation", "rates")
    lines = [line for line in read_results(folder) if line["kind"] not in ("setup", "timing")]
    return sorted(json.dumps([line.get(name) for name in fields]) for line in lines)


def test_a_tuned_comparison_that_ends_anywhere_goes_on_to_the_same_rows(tmp_path):
    """In the first rates, between the last row and the choice, and while rates are added."""
    target = f"{tuned_task.__name__}:way"
    plan = Plan.of([target], ["sum"], [0], tune=True, baselines="none")
    whole = compare(plan, tmp_path / "whole")
    lines = whole.path.read_bytes().splitlines(keepends=True)
    kinds = [line["kind"] for line in whole.lines]
    for cut in (3, 2 + 18, 2 + 18 + 2, kinds.index("choice"), kinds.index("choice") + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "results.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:-9])
        again = compare(plan, folder)
        assert told(folder) == told(whole.path.parent)
        assert len(again.lines) == len(lines)
    assert [line["kind"] for line in compare(plan, whole.path.parent).lines] == kinds


def test_a_task_with_no_rate_that_works_has_failed_rows_and_the_others_go_on(tmp_path):
    task("broken", steps=2, lr=0.1)(
        lambda data_root, seed: tuned_task.problem(0.1, above=0.0, error=gs.InputError("no."))
    )
    plan = Plan.of(
        ["broken", f"{tuned_task.__name__}:way"], ["sum"], [0], tune=True, baselines="none"
    )
    results = compare(plan, tmp_path)
    failed, done = results.runs
    assert failed["error"] == "InputError: no."
    assert failed["lr"] == 0.1
    assert done["test"]


def test_without_a_primary_figure_the_rule_says_which_is_taken(tmp_path):
    for name, units in (("one-kind", ("", "")), ("two-kinds", ("", "m"))):
        made = tuned_task.problem(0.1)
        metrics = {n: gs_metric(u) for n, u in zip(("a", "b"), units, strict=True)}
        task(name, steps=2, lr=0.1)(
            lambda data_root, seed, made=made, metrics=metrics: _replaced(made, metrics)
        )
    plan = Plan.of(["one-kind", "two-kinds"], ["sum"], [0], tune=True, baselines="none")
    choices = [x for x in compare(plan, tmp_path).lines if x["kind"] == "choice"]
    rules = {line["task"]: line["rule"] for line in choices}
    assert "mean of the validation figures of 'a', 'b'" in rules["one-kind"]
    assert "'a' (score, higher is better), the first one" in rules["two-kinds"]


def gs_metric(unit):
    from gradsurgery.tasks import Metric

    return Metric("score", unit=unit)


def _replaced(made, metrics):
    from dataclasses import replace

    return replace(made, metrics=metrics)


def test_the_search_begins_around_rates_that_are_given_with_it(tmp_path):
    target = f"{tuned_task.__name__}:way"
    plan = Plan.of([target], ["sum"], [0], lrs=[0.1, 0.4], tune=True, baselines="none")
    (choice,) = (x for x in compare(plan, tmp_path).lines if x["kind"] == "choice")
    assert len(choice["rates"]) == 6
    assert math.isclose(math.prod(choice["rates"]) ** (1 / 6), 0.2, rel_tol=1e-4)


def test_words_that_make_no_sense_are_errors():
    with pytest.raises(gs.InputError, match="1000, 1001, 1002 are those of the search"):
        Plan.of(["multimnist"], ["sum"], [1001], tune=True)
    with pytest.raises(gs.InputError, match="Did you mean 'auto'"):
        Plan.of(["multimnist"], ["sum"], [0], baselines="autto")
    with pytest.raises(gs.InputError, match="not known yet"):
        Plan.of(["multimnist"], ["sum"], [0], tune=True).runs()

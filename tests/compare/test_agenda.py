"""The cells of a tuned plan: the same whatever order their rows come in, and after any of them."""

import random

import pytest

from gradsurgery.compare import Plan
from gradsurgery.compare.agenda import Agenda
from gradsurgery.compare.cell import key_of
from gradsurgery.compare.methods import Method
from tests.compare import tuned_task

pytestmark = pytest.mark.quick
BEST = {"sum": 0.3, "mgda": 0.004, "pcgrad": 0.03}


def plan_of(**settings):
    target = f"{tuned_task.__name__}:way"
    return Plan.of([target], list(BEST), [0, 1], tune=True, baselines="none", **settings)


def row(plan, run):
    """What training would have written: the figure is best at a known rate."""
    figure = -abs(run.lr - BEST[run.strategy]) - run.seed % 7 / 1e4
    line = {**run.as_dict(), "key": key_of(plan, run), "better": {"a": "higher"}}
    metrics = {"a": {"name": "score", "unit": "", "higher": True}}
    return {**line, "metrics": metrics, "validation": {"a": figure}, "primary": "a"}


def agenda_of(plan, lines=()):
    return Agenda(plan, {"way": [Method(*both) for both in plan.strategies.items()]}, lines)


def worked(plan, agenda, rng, at_once=1, stop=None, before=()):
    """All lines, where so many cells are at work at a time and end in any order."""
    lines, working, totals = [], [], [agenda.total]
    while not agenda.done and (stop is None or len(lines) < stop):
        while len(working) < at_once and (run := agenda.next()) is not None:
            working.append(run)
        run = working.pop(rng.randrange(len(working)))
        line = row(plan, run)
        lines.append(line)
        agenda.took(run, line)
        lines += agenda.choices()
        totals.append(agenda.total)
    assert totals == sorted(totals)  # what is known of the plan only grows
    if stop is None:
        assert totals[-1] == sum("key" in line for line in [*before, *lines])
    return lines


def same(lines):
    return sorted(map(repr, lines))


@pytest.mark.parametrize("at_once", [1, 2, 7, 100])
def test_rows_do_not_depend_on_the_order_in_which_they_end(at_once):
    plan = plan_of()
    undisturbed = worked(plan, agenda_of(plan), random.Random(0))
    for turn in range(3):
        assert same(worked(plan, agenda_of(plan), random.Random(turn), at_once)) == same(
            undisturbed
        )
    choices = {x["strategy"]: x for x in undisturbed if x["kind"] == "choice"}
    assert {name: choice["edge"] for name, choice in choices.items()} == dict.fromkeys(BEST)
    assert [len(choices[name]["rates"]) for name in BEST] == [10, 10, 6]


def test_a_search_goes_on_from_any_subset_of_its_rows():
    plan, rng = plan_of(), random.Random(0)
    undisturbed = worked(plan, agenda_of(plan), random.Random(0))
    for stop in (0, 1, 17, 54, 55, 60, len(undisturbed) - 3, len(undisturbed)):
        before = worked(plan, agenda_of(plan), rng, at_once=3, stop=stop)
        rng.shuffle(before)
        again = agenda_of(plan, before)
        found = [*before, *again.choices()]
        found += worked(plan, again, rng, at_once=2, before=before)
        assert same(found) == same(undisturbed)


def test_all_rates_are_searched_before_anything_is_reported_and_seeds_come_last():
    plan = plan_of()
    runs = [x for x in worked(plan, agenda_of(plan), random.Random(0)) if x["kind"] != "choice"]
    kinds = [run["kind"] for run in runs]
    assert kinds == sorted(kinds, reverse=True)
    reported = [(run["seed"], run["strategy"]) for run in runs if run["kind"] == "run"]
    assert [seed for seed, _ in reported] == sorted(seed for seed, _ in reported)
    assert {name for _, name in reported[:3]} == set(BEST)
    assert [run["seed"] for run in runs[:54]] == [1000] * 18 + [1001] * 18 + [1002] * 18


def test_a_choice_that_is_written_stands():
    """Rows of another machine may differ in the last digit; the rate is not chosen twice."""
    plan = plan_of()
    lines = worked(plan, agenda_of(plan), random.Random(0))
    choices = [{**x, "lr": 0.5} for x in lines if x["kind"] == "choice"]
    agenda = agenda_of(plan, [x for x in lines if x["kind"] == "tune"] + choices)
    runs = []
    while (run := agenda.next()) is not None:
        runs.append(run)
    assert {run.lr for run in runs} == {0.5}
    assert [run.kind for run in runs] == ["run"] * 6

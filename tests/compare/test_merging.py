"""Results of several machines, read as one comparison."""

import json

import pytest

import gradsurgery as gs
from gradsurgery.compare import Plan, compare, conclude, read_results
from tests.compare import tuned_task

pytestmark = pytest.mark.quick
TARGET = f"{tuned_task.__name__}:way"


def test_folders_with_other_seeds_and_strategies_are_read_as_one(tmp_path):
    for name, strategies, seeds in (("a", ["sum"], [0, 1]), ("b", ["sum", "mgda"], [1, 2])):
        compare(Plan.of([TARGET], strategies, seeds), tmp_path / name)
    lines = read_results(tmp_path / "a", tmp_path / "b")
    assert [line["kind"] for line in lines].count("setup") == 1
    assert lines[0]["seeds"] == [0, 1, 2]
    assert list(lines[0]["strategies"]) == ["sum", "mgda"]
    runs = sorted((x["strategy"], x["seed"]) for x in lines if x["kind"] == "run")
    assert runs == [("mgda", 1), ("mgda", 2), ("sum", 0), ("sum", 1), ("sum", 2)]
    assert conclude(lines)["way"].seeds == 3
    compare(Plan.of([TARGET], ["sum"], [3], steps=1), tmp_path / "c")
    with pytest.raises(gs.InputError, match="its task 'way' has another steps"):
        read_results(tmp_path / "a", tmp_path / "c")


def test_the_first_choice_of_a_rate_stands(tmp_path):
    """Two machines whose figures differ in the last digit may choose neighbours."""

    def line(kind, lr, **more):
        made = {"kind": kind, "task": "t", "strategy": "sum", "optimizer": None, "lr": lr}
        return json.dumps({**made, **more}) + "\n"

    for name, lr, seed in (("a", 0.1, 0), ("b", 0.2, 1)):
        rows = [line("tune", 0.1, seed=1000, key="k"), line("choice", lr)]
        rows.append(line("run", lr, seed=seed, key=f"{lr}"))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    found = read_results(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [(x["kind"], x["lr"]) for x in found] == [("tune", 0.1), ("choice", 0.1), ("run", 0.1)]

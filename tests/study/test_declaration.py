"""What is declared can be run, and rows say which declaration they were made under."""

import json
import subprocess
from dataclasses import replace

import pytest

import gradsurgery as gs
from gradsurgery.compare import parse_strategy
from gradsurgery.study import DECLARATION, Part
from gradsurgery.study import declared as module
from gradsurgery.study.provenance import begin, commit_of, flags, stamp, stamps_of
from gradsurgery.study.watch import TimeUpError, Watch
from gradsurgery.tasks import get_task
from tests.study.tiny import TINY

PARTS = DECLARATION.parts


def test_every_label_is_a_strategy_and_every_seed_is_of_the_study():
    assert len({part.name for part in PARTS}) == len(PARTS)
    for part in PARTS:
        for label in part.strategies:
            assert parse_strategy(label)[0] == label
        assert part.strategies[0] == "sum"
        assert min(part.reported) == 100
        assert max(part.reported) < 1000  # from there on rates are chosen
        assert part.delta > 0
    assert [len(part.reported) for part in PARTS] == [20] * 4 + [10] * 4 + [6]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_what_is_declared_is_what_the_task_declares(part):
    task = get_task(part.task)
    if task.primary is not None:
        assert (part.primary, part.delta) == (task.primary, task.delta)
    assert task.seeded


def test_predictions_are_about_what_is_run():
    names = {part.name: part for part in PARTS}
    for prediction in DECLARATION.predictions:
        for name in prediction.parts:
            for label in prediction.strategies:
                assert label in (*names[name].strategies, "joint-only")
                assert label != "joint-only" or names[name].joint is not None
    for label in DECLARATION.measured.flat:
        assert all(label in part.strategies for part in PARTS if "flatness" in part.measured)


def test_tiers_are_chosen_by_name():
    assert {part.tier for part in DECLARATION.of(["fast"])} == {"fast"}
    assert DECLARATION.of(["once", "fast"]) == [p for p in PARTS if p.tier in ("fast", "once")]
    with pytest.raises(gs.InputError, match="Did you mean 'fast'"):
        DECLARATION.of(["fats"])
    with pytest.raises(gs.InputError, match="tier"):
        Part("a", "slow", "tiny", 1, ("sum",), "fused", 1.0)


def test_the_digest_changes_with_what_is_declared():
    again = replace(DECLARATION, parts=tuple(replace(part) for part in PARTS))
    assert again.digest == DECLARATION.digest
    first = replace(PARTS[0], delta=2.0)
    assert replace(DECLARATION, parts=(first, *PARTS[1:])).digest != DECLARATION.digest


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", *who, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_commit_that_last_changed_the_declaration_is_written_beside_rows(tmp_path):
    source = tmp_path / "declared.py"
    source.write_text("A = 1\n")
    assert commit_of(source)["commit"] is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "declared")
    first = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "other").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "other")
    rows = tmp_path / "rows"
    begin(rows, stamp(TINY, source, jobs=2))
    begin(rows, stamp(TINY, source))
    written = stamps_of(rows)
    assert [one["commit"] for one in written] == [first, first]
    assert [one["changed"] for one in written] == [False, False]
    assert written[0]["jobs"] == 2
    row = {"kind": "run", "key": "a", "started": written[0]["started"]}
    assert flags(TINY, written, [row]) == []
    source.write_text("A = 2\n")
    assert commit_of(source) == {**commit_of(source), "commit": first, "changed": True}
    other = replace(TINY, selection="Another.")
    with pytest.raises(gs.InputError, match="rows of another declaration"):
        begin(rows, stamp(other, source))
    assert len(stamps_of(rows)) == 2
    assert json.loads((rows / "declared.jsonl").read_text().splitlines()[0]) == written[0]


def test_the_declaration_that_ships_has_a_commit_or_none_outside_a_clone():
    from pathlib import Path

    found = commit_of(Path(module.__file__))
    assert found["commit"] is None or len(found["commit"]) == 40


def test_a_part_is_stopped_after_the_row_that_the_time_ended_in():
    said, now = [], [0.0]
    watch = Watch("tiny", 100.0, said.append, lambda: now[0])
    watch.planned(9)
    run = type("Run", (), {"strategy": "sum", "seed": 3})
    watch.finished(run, {})
    now[0] = 70.0
    watch.finished(run, {"error": "ValueError: no"})
    assert said == [
        "  tiny: sum, seed 3 failed: ValueError: no",
        "  tiny: 2 cells in 1 min; 9 in all so far",
    ]
    now[0] = 100.0
    with pytest.raises(TimeUpError):
        watch.finished(run, {})
    assert not issubclass(TimeUpError, Exception)  # no row takes it for its failure

"""A line that a kill cut off is left out, and said with its file and number."""

import json

import pytest

from gradsurgery.compare import read_results
from gradsurgery.compare.journal import cut_off
from gradsurgery.compare.results import Results
from gradsurgery.report import write_report
from gradsurgery.study import read_evidence
from gradsurgery.study.said import lines_of
from tests.study.known import choice, flat
from tests.study.tiny import TINY
from tests.support.rows import known, write

pytestmark = pytest.mark.quick
HALF = '{"kind": "run", "task": "digits", "str'


@pytest.fixture
def folder(tmp_path):
    lines = known()
    write(tmp_path, lines[:5])
    write(tmp_path, lines[5:], "rows-here-1-1.jsonl")
    return tmp_path


def test_nothing_is_said_of_whole_files(folder):
    said = []
    write_report(folder, said.append)
    assert said == cut_off(folder) == []


def test_the_report_says_which_line_was_cut_off(folder):
    before = read_results(folder)
    path = folder / "rows-here-1-1.jsonl"
    number = len(path.read_text().splitlines()) + 1
    with path.open("a") as file:
        file.write(HALF)
    assert read_results(folder) == before
    said = []
    html, markdown = write_report(folder, said.append)
    assert len(said) == 1
    assert said[0].startswith(f"rows-here-1-1.jsonl, line {number}: cut off")
    assert said[0] in html.read_text()
    assert said[0] in markdown.read_text()
    assert cut_off(path) == said


def test_a_comparison_that_goes_on_remembers_what_was_cut_off(folder, monkeypatch):
    path = folder / "results.jsonl"
    with path.open("a") as file:
        file.write(HALF)
    monkeypatch.setattr("gradsurgery.compare.results.setup_line", lambda plan: known()[0])
    with Results(folder, object()) as results:
        assert results.torn[0].startswith("results.jsonl, line 6: cut off")
    assert cut_off(folder) == []  # it was taken back, so that lines can be added


def test_a_study_says_it_of_runs_and_measurements(tmp_path):
    part, _ = TINY.parts
    for name, line in (
        (part.name, choice(part, "sum", 0.1, {0.1: 1.0})),
        ("measured", flat(part, "sum", [1.0])[0]),
    ):
        write(tmp_path / name, [line], "results.jsonl" if name == part.name else "rows-a.jsonl")
    for path in tmp_path.glob("*/*.jsonl"):
        with path.open("a") as file:
            file.write(json.dumps({"kind": "run"})[:-3])
    found = read_evidence(TINY, tmp_path)
    assert [one.partition(":")[0] for one in found.torn] == [
        "tiny-sgd/results.jsonl, line 2",
        "measured/rows-a.jsonl, line 2",
    ]
    outcome = type("Outcome", (), {"evidence": found, "stopped": False, "left": 0})
    outcome.impossible = {}
    assert set(found.torn) <= set(lines_of(outcome))

"""The report on the course of runs: time to a level, memory, cosines, and diagnoses."""

import json

import pytest

from gradsurgery.compare import read_results
from gradsurgery.report import as_html, as_markdown, page_of, write_report
from gradsurgery.report.write import diagnoses
from tests.support.rows import row, setup, write

pytestmark = pytest.mark.quick
COURSES = {"sum": (50, 80), "fast": (80, 81), "slow": (20, 30)}


def courses(sign=1, **more):
    """Rows with validation figures at two evaluations, in a task where sum ends at 80."""
    lines = [setup(digits={"primary": "left", "delta": 1.0})]
    metric = {"name": "score", "unit": "", "higher": sign > 0, "chance": None}
    for label, (first, last) in COURSES.items():
        for seed in range(3):
            figures = {"left": sign * (last + 0.1 * (seed - 1)), "right": 1.0}
            course = {"left": [sign * first, figures["left"]], "right": [1.0, 1.0]}
            lines.append(
                row("digits", label, seed, figures, metrics=dict.fromkeys(figures, metric),
                    along={"steps": [50, 100], "seconds": [2.0, 4.5], "validation": course},
                    memory={"peak_mb": 300.0 + seed, "since": "run"},
                    trace={"trunk": {"steps": [0, 50], "cosine": [0.0, 0.25 * seed],
                                     "conflict": [1.0, 0.0]}}) | more
            )  # fmt: skip
    return lines


def cells(table, label):
    (found,) = (row for row in table.rows if row.cells[0].text == label)
    return [cell.text for cell in found.cells[1:]]


@pytest.mark.parametrize("sign", [1, -1])
def test_time_to_the_level_of_sum_and_memory(sign):
    page = page_of(courses(sign))
    cost = page.tasks[0].cost
    assert [cell.text for cell in cost.headings] == [
        "strategy", "steps", "seconds", "reached", "memory",
    ]  # fmt: skip
    assert cells(cost, "sum") == ["100", "4.5", "2 of 3", "301"]
    assert cells(cost, "fast") == ["50", "2", "3 of 3", "301"]
    assert cells(cost, "slow") == ["never", "never", "0 of 3", "301"]
    titles = [chart.title for chart in page.tasks[0].charts]
    assert titles == ["Figure against time", "Cosine over training"]
    assert "the peak of the process" in " ".join(cost.notes)
    said = " ".join(page.limitations)
    assert "Not measured: the control of conflict rates" in said
    assert "Not measured: memory" not in said
    assert "Time and memory" in as_html(page)
    assert "### Time and memory" in as_markdown(page)


def test_rows_of_before_have_no_such_section_and_the_page_says_why():
    lines = courses()
    for line in lines:
        for name in ("along", "memory", "trace"):
            line.pop(name, None)
    page = page_of(lines)
    assert page.tasks[0].cost is page.tasks[0].gradients is None
    assert page.tasks[0].charts == ()
    said = " ".join(page.limitations)
    for what in ("the time to reach a figure", "Not measured: memory", "cosines over the course"):
        assert what in said
    assert "--evaluations 8" in said
    assert "Time and memory" not in as_html(page)


def found(part, conflict=0.25):
    pair = {"group": "g", "first": "a", "second": "b", "verdict": "none", "conflict": conflict,
            "control": [0.0, 0.5], "cosine": 0.5, "length_ratio": 1.4, "covariance_ratio": 2.0,
            "noise_ratio": None, "root": 2**0.5, "assumption": {"magnitude": "holds"}}  # fmt: skip
    steps = [{"step": s, "share": 1 - s / 200, "losses": {}, "pairs": [pair]} for s in (0, 100)]
    return {"kind": "diagnosis", "key": part + str(conflict), "part": part, "task": "digits",
            "strategy": "sum", "seed": 0, "optimizer": None, "steps": steps}  # fmt: skip


def test_diagnoses_are_read_from_the_folder_or_from_the_study_beside_it(tmp_path):
    one = write(tmp_path / "one", courses())
    other = write(tmp_path / "other", courses())
    write(tmp_path / "measured", [found("one"), found("elsewhere")], "rows-a.jsonl")
    write(other / "measured", [found("other", 0.5)], "rows-a.jsonl")
    assert [line["part"] for line in diagnoses(one)] == ["one"]
    assert [line["part"] for line in diagnoses(other)] == ["other"]
    page = page_of(read_results(one), measured=diagnoses(one))
    table = page.tasks[0].gradients
    assert cells(table, "0") == ["100", "25", "25", "+0.50", "0 of 1", "1.40", "-"]
    assert cells(table, "100")[0] == "50"
    assert page.tasks[0].charts[-1].title == "Conflict beside its control"
    assert "√M, 1.41" in " ".join(table.notes)
    assert "control of conflict rates" not in " ".join(page.limitations)
    html, markdown = write_report(other)
    assert "Gradients along runs of sum" in html.read_text()
    assert "| 0 | 100 | 50 | 25 |" in markdown.read_text()
    with (other / "measured" / "rows-a.jsonl").open("a") as file:
        file.write(json.dumps(found("other"))[:40])
    said = []
    write_report(other, said.append)
    assert said[0].startswith("rows-a.jsonl, line 2: cut off")

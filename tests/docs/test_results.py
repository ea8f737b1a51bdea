"""The study's page is what its rows say, and can be made of known ones."""

import importlib
import sys

import pytest

from gradsurgery.study import DECLARATION
from tests.study.known import choice, diagnosis, evidence, flat, rows
from tests.support.paths import DOCS

SGD = DECLARATION.parts[0]


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield importlib.import_module("results")
    for name in ("results", "results_tables", "results_plots"):
        sys.modules.pop(name)


def test_the_page_is_that_of_the_rows_that_are_there(results):
    assert (DOCS / "results.rst").read_text() == results.page(*results.kept()), (
        "the page is not that of the rows and the declaration: python docs/results.py"
    )


def known():
    curve = {0.05: 80.0, 0.1: 82.0, 0.2: 60.0}
    lines = rows(SGD, {"mmpareto": 3.0, "scaled-sum": 0.1, "alone: image": 0.0})
    lines.append({**lines[0], "strategy": "mgda", "error": "NonFiniteError: no", "test": None})
    lines += [
        choice(SGD, name, 0.1, curve, edge) for name, edge in (("sum", None), ("mgda", "low"))
    ]
    other = [
        *flat(SGD, "sum", [5.0, 6.0, 7.0]),
        *flat(SGD, "mmpareto", [4.0, 5.5, 6.0]),
        diagnosis(SGD, {0: (1.0, 0.5, 0.02, "orthogonal", "holds")}),
    ]
    return evidence(DECLARATION, {SGD.name: lines}, other)


def test_a_page_of_known_rows_has_tables_answers_and_what_is_missing(results):
    page = results.page(known(), ["Steps were fewer."], {"curves.png": "Curves."})
    assert "Declared in commit ``0123456789abcdef``" in page
    table = page[page.index(".. list-table:: av-digits-sgd") :].split("* - ")
    best = [line.strip() for line in table[2].splitlines()]
    assert best[0] == "``mmpareto``"
    assert best[2].startswith("- +3.00 (")
    assert best[3] == "- better"
    assert [cell.splitlines()[0] for cell in table[3:6]] == [
        "``scaled-sum``",
        "``sum``",
        "``alone: image``",
    ]
    failed = next(x for x in table if x.startswith("``mgda``"))
    assert "20 of 20" in failed
    assert ", low edge" in failed
    assert "Yes: mmpareto against sum is better on 1 of 1 part." in page
    assert ".. image:: results/curves.png" in page
    assert "* mfeat: not run." in page
    assert "* Steps were fewer." in page
    assert "Flagged" not in page
    assert max(map(len, page.splitlines())) <= 200


@pytest.mark.exhaustive
def test_plots_are_drawn_of_what_there_is(results, tmp_path):
    made = results.draw(known(), tmp_path)
    assert list(made) == ["curves.png", "flatness.png", "conflict.png"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in made)
    assert results.draw(evidence(DECLARATION, {}), tmp_path) == {}

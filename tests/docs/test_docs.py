"""The docs' own check: it passes on what there is, and fails on a public name without
documentation.
"""

import importlib.util
import json
import sys
import types

import pytest

from tests.support.paths import DOCS


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("docs_check", DOCS / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_docstring(check):
    for name in check.MODULES:
        assert list(check.undocumented(importlib.import_module(name))) == []


def test_an_undocumented_name_is_found(check):
    module = types.ModuleType("fresh")
    exec(
        "from dataclasses import dataclass\n"
        "__all__ = ['bare', 'told', 'Bare', 'Told', 'Table', 'NUMBER']\n"
        "def bare(): ...\n"
        "def told(): 'Said.'\n"
        "class Bare: ...\n"
        "class Told:\n    'Said.'\n    def bare(self): ...\n    def _own(self): ...\n"
        "    @property\n    def size(self): ...\n"
        "@dataclass\nclass Table:\n    x: int\n"
        "NUMBER = 1\n",
        module.__dict__,
    )
    for thing in (module.bare, module.told, module.Bare, module.Told, module.Table):
        thing.__module__ = "fresh"
    assert list(check.undocumented(module)) == [
        "fresh.bare",
        "fresh.Bare",
        "fresh.Told.bare",
        "fresh.Told.size",
        "fresh.Table",
    ]
    assert list(check.missing(module, {"fresh.told", "fresh.Told", "fresh.Table"})) == [
        "fresh.bare",
        "fresh.Bare",
    ]


def test_violation_rates_are_measured(monkeypatch):
    """The page's own function on fewer draws; known rates for PCGrad at n = d = 3 and 5 are about
    12.5 and 29 %.
    """
    monkeypatch.syspath_prepend(str(DOCS))
    violations = importlib.import_module("violations")
    assert 8 < violations.rate("pcgrad", 3, 3, 400) < 18
    assert 22 < violations.rate("pcgrad", 5, 5, 400) < 36
    assert violations.rate("mgda", 5, 5, 100) == 0
    assert violations.rate("krum(byzantine=0)", 2, 2, 10) is None
    page = (DOCS / "violations.rst").read_text()
    assert all(f"``{name}``" in page for name in violations.STRATEGIES)
    assert f"{violations.DRAWS:,} draws" in page
    sys.modules.pop("violations")


def test_the_toys_page_is_its_recorded_outcomes(monkeypatch):
    """toy.rst is what docs/toy.py makes of toy.json, and there the strategies end where their
    papers say.
    """
    monkeypatch.syspath_prepend(str(DOCS))
    toy = importlib.import_module("toy")
    outcomes = json.loads((DOCS / "toy.json").read_text())
    assert (DOCS / "toy.rst").read_text() == toy.page(outcomes)
    off = {
        name: [end["distance"] >= toy.REACHED for end in found]
        for name, found in outcomes["ends"]["nash"].items()
    }
    for name, away in off.items():
        stops = name.split("(")[0] in ("sum", "pcgrad", "cagrad", "config")
        assert away == [False, False, stops, False, False], name
    assert [
        any(end["distance"] >= toy.REACHED for end in found)
        for found in outcomes["ends"]["cagrad"].values()
    ] == [True, False]
    sys.modules.pop("toy")


def test_the_page_on_speed_is_its_recorded_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    speed = importlib.import_module("speed")
    assert (DOCS / "speed.rst").read_text() == speed.page(speed.kept())
    sys.modules.pop("speed")

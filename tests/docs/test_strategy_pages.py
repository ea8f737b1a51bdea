"""Pages of strategies, families and names are the registry's."""

import importlib
import re

import pytest

import gradsurgery as gs
from gradsurgery.contract import About
from gradsurgery.contract.about import FAMILIES
from gradsurgery.contract.catalogue import explanations
from gradsurgery.contract.registry import registered
from gradsurgery.study import DECLARATION
from tests.study.known import evidence, rows
from tests.support.paths import DOCS
from tests.support.shipped import SHIPPED

pytest.importorskip("jinja2", reason="the pages are templates; torch brings jinja2")


@pytest.fixture(scope="module")
def docs():
    """The modules of the documentation, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        names = ("strategy_pages", "strategy_names", "strategy_pictures", "strategy_results")
        yield {name: importlib.import_module(name) for name in names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("docs")
    (made / "_templates").symlink_to(DOCS / "_templates")
    (made / "strategies").mkdir()
    return made


@pytest.fixture(scope="module")
def pages(docs, folder):
    (folder / "strategies" / "gone.rst").write_text("")
    written = docs["strategy_pages"].write_pages(folder)
    return {page.stem: page.read_text() for page in written}


def test_there_is_a_page_per_strategy_and_family_and_no_other(pages, folder):
    families = {name for name in pages if name.startswith("family-")}
    assert set(pages) == {"index", *SHIPPED, *families}
    assert len(families) == len(FAMILIES)
    assert not (folder / "strategies" / "gone.rst").exists()
    listed = re.findall(r"^   ([\w-]+)$", "\n".join(pages[f] for f in families), re.M)
    assert sorted(listed) == sorted(SHIPPED)
    assert re.findall(r"^   (family-[\w-]+)$", pages["index"], re.M) == [
        "family-" + name.replace(" ", "-") for name in FAMILIES
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_page_says_what_the_strategys_file_says(pages, docs, name):
    strategy, page = registered(name), pages[name]
    words = docs["strategy_pages"].cells
    assert f":doc:`{name} <{name}>`" in pages["index"]
    assert strategy.paper.split(",")[0] in page
    assert all(str(claim) in page for claim in strategy.claims)
    assert page.startswith(f"{name}\n{'=' * len(name)}\n\n{words(strategy.summary)}.")
    for text in (strategy.about.use, strategy.about.avoid, *strategy.about.differs):
        assert words(text) in page
    assert strategy.about.maths in page
    explained = explanations(strategy.description)
    for option in strategy.defaults:
        assert f"* - ``{option}``" in page
        assert words(explained[option]) in page
    for paper in strategy.about.papers:
        assert "title = {{" in page
        assert f"Read in: {paper.source}." in page
    assert ("pictures/" in page) != ("There is no picture" in page)


def test_the_readmes_table_is_the_registrys(docs):
    readme = (DOCS.parent / "README.md").read_text()
    assert docs["strategy_pages"].renew_readme(readme) == readme, (
        "the README's table is not the registry's: python docs/strategy_pages.py"
    )
    assert all(registered(name).summary for name in SHIPPED)


def test_pictures_are_drawn_once_and_show_progress(docs, tmp_path):
    pictures = docs["strategy_pictures"]
    some = [registered(name) for name in ("sum", "mgda", "krum")]
    assert pictures.draw_pictures(tmp_path, some) == ["sum", "mgda"]  # krum needs four gradients
    assert pictures.draw_pictures(tmp_path, some) == []
    assert "needs byzantine + 3" in pictures.cannot(some[2])
    text = (tmp_path / "mgda.svg").read_text()
    assert "angle between the gradients" in text
    (tmp_path / "mgda.svg").unlink()
    assert pictures.draw_pictures(tmp_path, some) == ["mgda"]
    found = pictures.directions(some[1])
    for angle, direction in zip(pictures.ANGLES, found, strict=True):
        for row in pictures.pair(angle).tolist():
            assert row[0] * direction[0] + row[1] * direction[1] >= -1e-9


def test_results_are_those_of_the_rows(docs):
    results_of = docs["strategy_results"].results_of
    part = DECLARATION.parts[0]
    known = evidence(DECLARATION, {part.name: rows(part, {"mmpareto": 3.0, "mgda": 0.0})})
    text = "\n".join(results_of(known, "mmpareto"))
    assert "``mmpareto``" in text
    assert "+3.00" in text
    assert "- better" in text
    assert "not in the study" in results_of(known, "krum")[0]
    empty = evidence(DECLARATION, {})
    assert f"declared for ``{part.name}``" in results_of(empty, "mmpareto")[0]


def test_every_name_of_a_peer_leads_to_a_strategy_or_to_none(docs):
    names = docs["strategy_names"]
    found = {name: names.ours(name) for each in names.PEERS.values() for name in each}
    assert {name for name, here in found.items() if here is None} == {"stl", "consmtl", "go4align"}
    assert len(found) >= 60
    text = "\n".join(names.peers())
    assert ":doc:`unit-sum" not in text
    assert "logarithms of the losses" in text
    assert "MGDA-UB" in "\n".join(names.near())


def test_formulas_become_mathml_and_what_is_unknown_fails(monkeypatch):
    pytest.importorskip("docutils", reason="formulas are for the pages: the extra docs")
    monkeypatch.syspath_prepend(str(DOCS))
    mathml = importlib.import_module("mathml").mathml
    for name in SHIPPED:
        made = mathml(registered(name).about.maths, block=True)
        assert made.startswith("<math")
        assert "*" not in made
        assert "munderover" not in made  # an index below an accent, in place of beside it
    assert "<mtable" in mathml(r"a &= b \\\\ c &= d", block=True)
    assert "<mfrac>" in mathml(r"\Big(\frac{a}{b}\Big)")
    with pytest.raises(Exception, match="Unknown LaTeX command"):
        mathml(r"\nonsense")


def test_the_options_of_a_docstring_are_left_to_the_table(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    module = importlib.import_module("strategy_docstrings")
    lines = registered("cagrad").description.split("\n")
    module.without_options(None, "function", "gradsurgery.strategies.cagrad.cagrad", 0, 0, lines)
    assert "Args:" not in lines
    assert "Raises:" in lines
    assert "Example:" in lines
    other = ["Says.", "", "Args:", "    x: it."]
    module.without_options(None, "function", "gradsurgery.backward", 0, 0, other)
    assert "Args:" in other


def test_a_family_of_ones_own_has_no_page_here(pages, temporary):
    gs.strategy("test-own", about=About(family="test family"))(lambda gram: gram[0])
    assert "test-own" not in pages["index"]

"""`gradsurgery cite`: entries that BibTeX reads, with where each was read."""

import re

import pytest

import gradsurgery as gs
from gradsurgery import cli
from gradsurgery.citing import OURS, cited, key_of, ours
from gradsurgery.contract import About, Citation
from gradsurgery.contract.registry import registered
from tests.support.paths import ROOT
from tests.support.shipped import SHIPPED

pytestmark = pytest.mark.quick
ENTRY = re.compile(r"@(\w+)\{([a-z0-9-]+),\n((?:  \w+ = \{.*\},\n)+)\}")


def entries(text):
    """kind, key and fields of each entry; all else is a comment, and braces balance."""
    rest = ENTRY.sub("", text)
    assert all(line.startswith("%") for line in rest.splitlines() if line.strip()), rest
    found = []
    for kind, key, body in ENTRY.findall(text):
        fields = dict(re.findall(r"  (\w+) = \{(.*)\},\n", body))
        assert all(value.count("{") == value.count("}") for value in fields.values())
        found.append((kind, key, fields))
    return found


def test_every_paper_is_one_entry_in_ascii_with_its_own_key():
    text = cited(SHIPPED)
    found = entries(text)
    assert all(value.isascii() for _, _, fields in found for value in fields.values())
    papers = {registered(n).about.papers[0] for n in SHIPPED if registered(n).about.papers}
    assert len(found) == len(papers) > 40
    assert len({key for _, key, _ in found}) == len(found)
    assert {fields["title"] for _, _, fields in found} >= {
        "{Conflict-Averse Gradient Descent for Multi-task Learning}"
    }
    for name in SHIPPED:
        assert re.search(rf"^% (.*, )?{name}[,:;\n]", text, re.M), name
    for paper in papers:
        assert paper.source in text


def test_a_name_prints_its_entry_once_and_options_do_not_count(monkeypatch, capsys):
    words = ["cite", "mmpareto", "cagrad(c=0.4)", "cagrad", "imtl-g", "imtl-l"]
    monkeypatch.setattr("sys.argv", ["gradsurgery", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    text = capsys.readouterr().out
    assert [key for _, key, _ in entries(text)] == [
        "wei2024mmpareto",
        "liu2021conflictaverse",
        "liu2021towards",
    ]
    assert "% imtl-g, imtl-l; as in" in text


def test_what_has_no_paper_says_so():
    assert cited(["sum"]) == "% sum: the usual sum of losses; there is no paper to cite"


def test_an_unknown_name_has_the_known_hint(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gradsurgery", "cite", "mmpareto", "cagrd"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert (stopped.value.code, said.out) == (2, "")
    assert "unknown strategy 'cagrd'. Did you mean 'cagrad'? Known: " in said.err


def test_the_librarys_own_entry_is_that_of_citation_cff():
    ((kind, key, fields),) = entries(ours())
    citation = (ROOT / "CITATION.cff").read_text()
    assert (kind, key) == ("misc", "gradsurgery")
    assert fields["note"] == f"Version {gs.__version__}"
    assert f'title: "{OURS.title}"' in citation
    assert f'date-released: "{OURS.year}-' in citation
    assert '- name: "The gradsurgery developers"' in citation
    assert fields["author"] == "{The gradsurgery developers}"  # a group, not a family name


def test_signs_are_escaped_as_bibtex_wants_them():
    paper = Citation("100% of R&D_1 – α", ("Jean-Antoine Désidéri", "Ågot Ødegård", "Łukasz Groß"))
    assert paper.bibtex("k") == (
        "@misc{k,\n"
        "  title = {{100\\% of R\\&D\\_1 -- $\\alpha$}},\n"
        "  author = {Jean-Antoine D{\\'e}sid{\\'e}ri and {\\r A}got {\\O}deg{\\r a}rd and "
        "{\\L}ukasz Gro{\\ss}},\n"
        "}"
    )
    assert key_of(Citation("On the A: B", ("Élan Désidéri",), 2031), "x") == "desideri2031a"


def test_two_papers_of_one_author_and_year_have_two_keys(temporary):
    for name, title in (("one", "Gradients, first"), ("two", "Gradients, second")):
        about = About(papers=(Citation(title, ("Ada Author",), 2031),))

        @gs.strategy(f"cited-{name}", about=about)
        def fixed(gram):
            return [1.0] * len(gram)

    assert [key for _, key, _ in entries(cited(["cited-one", "cited-two"]))] == [
        "author2031gradients",
        "author2031gradientsb",
    ]

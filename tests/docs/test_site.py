"""The site's own tools: pages of the API, inventories of other projects, links within."""

import importlib
import sys
import zlib

import pytest

from tests.support.paths import DOCS


@pytest.fixture
def tool(monkeypatch):
    """A module of docs/ by its name."""
    monkeypatch.syspath_prepend(str(DOCS))
    found = []

    def imported(name):
        found.append(name)
        return importlib.import_module(name)

    yield imported
    for name in found:
        sys.modules.pop(name)


def listed(inventory):
    head, body = inventory.split(b"zlib.\n")
    return head, zlib.decompress(body).decode()


def test_the_inventories_are_those_of_the_list(tool):
    inventories = tool("inventories")
    text = (DOCS / "inventories" / "names.txt").read_text()
    for project, (site, path) in inventories.mapping().items():
        kept = listed((DOCS / path).read_bytes())
        assert kept == listed(inventories.inventory(project, text)), project
        assert site.startswith("https://")
    assert (
        "torch.Tensor py:class 1 tensors.html#$ -"
        in listed(inventories.inventory("torch", text))[1].splitlines()
    )
    with pytest.raises(ValueError, match="expected project, name, page"):
        inventories.inventory("torch", "torch torch.Tensor")


def test_a_page_per_public_object_and_the_three_first(tool, tmp_path):
    import gradsurgery as gs

    pages = tool("api_pages")
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "gone.rst").write_text("")
    names = pages.write_api(tmp_path)
    assert {f"gradsurgery.{name}" for name in gs.__all__} <= set(names)
    start = (tmp_path / "api" / "index.rst").read_text()
    places = [start.index(f"`~gradsurgery.{name}`") for name in ("Surgery", "backward", "Record")]
    assert places == sorted(places)
    others = set(gs.__all__) - {"Surgery", "backward", "Record"}
    assert min(start.index(f"`~gradsurgery.{name}`") for name in others) > places[2]
    assert not (tmp_path / "api" / "gone.rst").exists()
    assert {path.stem for path in (tmp_path / "api").glob("*.rst")} == set(names)


def test_links_that_lead_nowhere_are_found(tool, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">T</h1><a href="sub/page.html#there">a</a><a href="#top">b</a>'
        '<a href="https://example.org/x#y">c</a><img src="none.png"><a href="#gone">d</a>'
    )
    (tmp_path / "sub" / "page.html").write_text(
        '<p id="there"></p><a href="../index.html#nowhere">a</a><a href="../index.html">b</a>'
    )
    bad, external = tool("links").broken(tmp_path)
    assert bad == [
        "index.html: none.png",
        "index.html: #gone",
        "sub/page.html: ../index.html#nowhere",
    ]
    assert list(external) == ["https://example.org/x#y"]


def test_stored_runs_have_pages_and_others_have_none(tool, tmp_path):
    pages, shown = tool("shown_pages"), tool("shown")
    assert set(pages.PAGES) == set(shown.EXAMPLES) == set(shown.DRAWN)
    docs, gallery = tmp_path / "docs", tmp_path / "gallery"
    (docs / "shown").mkdir(parents=True)
    gallery.mkdir()
    assert pages.write_shown(docs, gallery) == []
    assert list(gallery.iterdir()) == []
    (docs / "shown" / "lightning.txt").write_text("$ python examples/lightning_multitask.py")
    assert pages.write_shown(docs, gallery) == ["lightning"]
    header = (gallery / "stored" / "GALLERY_HEADER.rst").read_text()
    assert ":doc:`/shown/lightning`" in header
    assert "peft" not in header
    page = (docs / "shown" / "lightning.rst").read_text()
    assert ".. literalinclude:: lightning.txt" in page
    assert max(map(len, (page + header).splitlines())) <= 100


@pytest.mark.exhaustive
def test_a_run_is_stored_with_its_command_and_versions(tool, tmp_path):
    """On a script of ours that prints a little, in place of a framework's."""
    shown = tool("shown")
    text = shown.ran(("own_pcgrad.py",), tmp_path)
    assert text == "$ python examples/own_pcgrad.py\n\n"
    assert "gradsurgery " in shown.versions("torch")

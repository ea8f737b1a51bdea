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
    assert all(start.index(f"`~gradsurgery.{name}`") >= places[2] for name in gs.__all__[:20])
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

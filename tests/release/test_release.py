"""Versions agree, one command sets the addresses, and everything a release needs is there."""

import importlib.util
import re
import shutil

import pytest

import gradsurgery as gs
from tests.support.paths import ROOT

pytestmark = pytest.mark.quick
tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACEHOLDER = "https://github.com/OWNER/gradsurgery"


@pytest.fixture
def urls():
    path = ROOT / "release" / "set_urls.py"
    spec = importlib.util.spec_from_file_location("set_urls", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path):
    """The files that may have the repository's address."""
    for name in ("docs", ".github"):
        kept = shutil.ignore_patterns("_build", "rows", "*.png", "gallery", "strategies")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=kept)
    for path in (*ROOT.glob("*.md"), ROOT / "CITATION.cff", ROOT / "pyproject.toml"):
        shutil.copy(path, tmp_path)
    return tmp_path


def addresses(folder, address):
    """The files of a folder that have the address."""
    return {path for path in folder.rglob("*.*") if path.is_file() and _has(path, address)}


def _has(path, address):
    return address in path.read_text(errors="ignore")


def test_the_version_is_the_same_wherever_it_stands():
    citation = (ROOT / "CITATION.cff").read_text()
    dated = re.search(
        r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert PROJECT["project"]["version"] == gs.__version__ == dated[1]
    assert re.search(r"^version: (\S+)$", citation, re.M)[1] == gs.__version__
    assert re.search(r'^date-released: "(\S+)"$', citation, re.M)[1] == dated[2]
    assert re.fullmatch(r"\d+\.\d+\.\d+", gs.__version__)


def test_one_command_sets_every_address_and_another_call_changes_it_again(urls, copy):
    before = addresses(copy, PLACEHOLDER)
    assert {"pyproject.toml", "CITATION.cff", "SECURITY.md", "config.yml"} <= {
        path.name for path in before
    }
    assert set(urls.set_urls("https://example.org/a/b", copy)) == before
    assert addresses(copy, "OWNER") == set()
    links = tomllib.loads((copy / "pyproject.toml").read_text())["project"]["urls"]
    assert links["Repository"] == "https://example.org/a/b"
    assert all(link.startswith("https://example.org/a/b") for link in links.values())
    assert set(urls.set_urls("https://example.org/c", copy)) == before
    assert addresses(copy, "example.org/a/b") == set()
    assert urls.set_urls("https://example.org/c", copy) == []


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "http://a.b/c", "https://a.b", 'https://a/"']
)
def test_what_is_no_address_changes_nothing(url, urls, copy):
    with pytest.raises(ValueError, match="expected an address"):
        urls.set_urls(url, copy)
    assert addresses(copy, PLACEHOLDER)


def test_the_sdist_has_every_part_that_is_kept_under_version_control():
    """Its own tests are run by `nox -s package`; here, that no part is forgotten."""
    patterns = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    included = {path.name for pattern in patterns for path in ROOT.glob(pattern[1:])}
    ours = {"docs", "tests", "release", "noxfile.py", ".ci", ".github", "CITATION.cff"}
    ours |= {path.name for path in ROOT.glob("*.md")}
    assert ours <= included


def test_the_workflow_runs_what_the_repository_runs_by_itself():
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    assert re.findall(r"^ +run: (.*)$", text, re.M) == [".ci/run"]
    assert len(re.findall(r"^  \w+:\n    runs-on:", text, re.M)) == 1
    (version,) = re.findall(r'python-version: "(.*)"', text)
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


def test_yaml_files_can_be_read():
    yaml = pytest.importorskip("yaml", reason="`nox -s package` checks them against their rules")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == gs.__version__
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text())


def test_every_template_for_issues_says_what_it_is_for():
    found = list((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md"))
    assert len(found) == 2
    for path in found:
        head = path.read_text().split("---\n")[1]
        assert re.match(r"name: .+\nabout: .+\nlabels: .+\n", head), path

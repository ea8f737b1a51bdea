"""The example plugin, installed into a folder: listed, described, checked and compared by name."""

import configparser
import os
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import EXAMPLES, ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
PLUGIN = EXAMPLES / "plugin"
BY_NAME = """
import sys
sys.path.insert(0, sys.argv[1])
import gradsurgery as gs
from gradsurgery.contract.registry import registered
from gradsurgery.tasks import get_task, task_names
from gradsurgery.testing import check_strategy

assert "median-length" in gs.strategy_names()
assert not registered("median-length").shipped
assert set(check_strategy("median-length").values()) == {"passed"}
assert "ring" in task_names()
from gradsurgery.cli import main

sys.argv = ["gradsurgery", "compare", "--tasks", "ring", "--strategies", "sum,median-length"]
sys.argv += ["--seeds", "2", "--steps", "40", "--jobs", "1", "--out", "out"]
main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package and what an installer writes beside it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN / "gradsurgery_plugin", folder / "gradsurgery_plugin")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    lines = ("Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {version}", "")
    (about / "METADATA").write_text("\n".join(lines))
    points = configparser.ConfigParser()
    points.read_dict(project["entry-points"])
    with (about / "entry_points.txt").open("w") as file:
        points.write(file)
    return folder


def test_it_is_listed_checked_and_compared(installed, fresh, tmp_path):
    done = fresh(BY_NAME, installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "ring: accuracy in % of outside" in said
    assert "median-length" in said
    assert (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.exhaustive
def test_a_process_of_its_own_finds_it(installed, tmp_path):
    """The same by the commands of a terminal, with processes that train."""
    paths = os.pathsep.join(map(str, (ROOT, installed)))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "80", "NO_COLOR": "1"}

    def run(*words):
        command = [sys.executable, "-m", "gradsurgery", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    assert "\nmedian-length" in run("list").stdout
    assert "median length" in run("describe", "median-length").stdout
    options = ("--strategies=sum,median-length", "--seeds=2", "--steps=20", "--jobs=2")
    done = run("compare", "--tasks=ring", *options)
    assert done.returncode == 0, done.stderr


BROKEN = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
from gradsurgery.tasks import task_names

with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    names = task_names()
    task_names()
assert "multimnist" in names and "ring" not in names
print([str(one.message) for one in found if "plugin" in str(one.message)])
"""


def test_one_that_cannot_be_imported_is_one_warning(installed, fresh, tmp_path):
    shutil.copytree(installed, tmp_path / "site")
    (tmp_path / "site/gradsurgery_plugin/tasks.py").write_text("raise RuntimeError('no data')")
    done = fresh(BROKEN, tmp_path / "site", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("could not be loaded") == 1
    assert "the task plugin 'gradsurgery_plugin.tasks' could not be loaded" in done.stdout
    assert "no data" in done.stdout

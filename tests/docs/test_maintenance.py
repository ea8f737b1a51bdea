"""What the next maintainer reads speaks of the files that there are."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "gradsurgery"
ENGINE = PACKAGE / "engine"


def test_the_map_of_the_engine_names_each_of_its_files_and_none_that_is_gone():
    text = (ENGINE / "README.md").read_text()
    here = {path.name for path in ENGINE.glob("*.py")} - {"__init__.py"}
    found = (*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"))
    elsewhere = {path.name for path in found if path.parent != ENGINE}
    code = re.findall(r"`([^`]+)`", text)
    named = {piece.rpartition("/")[2] for piece in code if piece.endswith(".py")}
    functions = {f"{piece.split('.')[0]}.py" for piece in code if "." in piece}
    assert here - named - functions == set()
    assert named - here - elsewhere == set()
    for piece in code:
        if "/" in piece:  # a path, or a function of a file with the path before its name
            path = piece.split(" ")[0]
            paths = path, f"{path.rpartition('.')[0]}.py"
            roots = ROOT, PACKAGE, ENGINE
            assert any((root / one).exists() for root in roots for one in paths), piece


GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
FILE = re.compile(r"\*\*\d\.\*\* `([\w/]+\.py)`:\n\n```python\n(.*?)```", re.S)
EDIT = re.compile(r"`([\w/]+\.py)`[^\n]*:\n\n```python\n(.*?)```", re.S)
RECIPES = {  # the section, and what is run in it
    "A new strategy": ["tests/testing/test_conformance.py", "-k", "equal-length"],
    "A new input": ["tests/contract/test_shapes.py"],
    "A layer rule": ["tests/gradients/test_bilinear.py"],
    "A solver": ["tests/solvers/test_floored.py", "gradsurgery/solvers/floored.py"],
}


def edited(text, path, code):
    """A file with what a recipe adds to it: a row of the table, or a function at the end."""
    if path.endswith("inputs.py"):
        row, before = code.split("    ...,\n")[1], '    Input(\n        "generator"'
        assert text.count(before) == 1
        return text.replace(before, row + before)
    return f"{text}\n\n{code}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_works_as_it_is_written(recipe, tmp_path):
    for name in ("gradsurgery", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    section = next(part for part in GUIDE.split("\n## ") if part.startswith(recipe))
    files = dict(FILE.findall(section))
    for path, code in EDIT.findall(section):
        target = tmp_path / path
        if path in files:
            assert not target.exists(), f"{path} is there: the recipe needs another example"
            target.write_text(code)
        else:
            target.write_text(edited(target.read_text(), path, code))
    if recipe == "A solver":
        front = tmp_path / "gradsurgery/solvers/__init__.py"
        line = "from gradsurgery.solvers.floored import floored_min_norm\n"
        after = "from gradsurgery.solvers.frank_wolfe"
        front.write_text(front.read_text().replace(after, line + after))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *RECIPES[recipe]]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout

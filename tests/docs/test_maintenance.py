"""What the next maintainer reads speaks of the files that there are."""

import re

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

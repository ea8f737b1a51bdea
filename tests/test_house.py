"""The house: who may import whom, what stays out of the import, and what the README says."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest

import gradsurgery as gs
from gradsurgery.contract.registry import registered
from tests.support.paths import ROOT

pytestmark = pytest.mark.quick

PACKAGE = ROOT / "gradsurgery"
# what each part may import of ours
BELOW = {"errors", "types"}
AUTHOR = BELOW | {"record", "solvers", "gradients", "contract"}
ALLOWED = {
    "errors": set(),
    "types": set(),
    "solvers": BELOW | {"solvers"},
    "record": BELOW | {"solvers", "record"},
    "gradients": AUTHOR,
    "contract": AUTHOR,
    "strategies": BELOW | {"contract", "solvers"},
    "engine": AUTHOR | {"engine"},
    "modules": {"errors"},
    "testing": AUTHOR | {"modules", "testing"},
    # these build on the public package alone, as a user's code would; the errors' helpers word a
    # wrong task as a wrong strategy is worded
    "tasks": {*gs.__all__, "errors", "modules", "tasks"},
    "compare": {*gs.__all__, "errors", "modules", "tasks", "compare"},
    "diagnostics": {*gs.__all__, "errors", "types", "diagnostics"},
    "study": {*gs.__all__, "errors", "tasks", "compare", "diagnostics", "study"},
    # an interface of other code over the public package
    "weight_methods": {"the package", *gs.__all__, "errors", "contract"},
    "console": set(),
    "report": {"the package", "errors", "compare", "tasks", "report"},
    "check_command": {"errors", "testing", "compare"},
    "report_command": {"report", "study"},
    "study_command": {"errors", "compare", "study"},
    "cli": {
        *("the package", *gs.__all__, "console", "errors", "contract", "tasks", "compare"),
        *("check_command", "report_command", "study_command", "commands", "plain_cli"),
    },
    "commands": {"contract", "citing"},
    "citing": {"the package", "contract"},
    "plain_cli": {"the package", "commands", "errors"},
    "__main__": {"cli"},
}
LAZY = {"scipy", "cvxpy", "pytest", "hypothesis", "typer", "rich"} | {
    *("jinja2", "matplotlib", "mlxtend", "pandas", "tensorboard"),
}


def imports(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "gradsurgery":
                yield from (f"gradsurgery.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_import_directions(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        pieces = name.split(".")
        if pieces[0] != "gradsurgery" or part == "__init__":
            continue
        assert (pieces[1] if len(pieces) > 1 else "the package") in ALLOWED[part], (
            f"{path.name} may not import {name}"
        )
        if part == "strategies" and path.name != "__init__.py":
            assert pieces[1] != "strategies"


def test_optional_and_slow_imports_are_inside_functions():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [getattr(node, "module", None) or ""]
            )
            assert not {name.split(".")[0] for name in names} & LAZY, path
    code = (
        "import sys, torch; before = set(sys.modules); import gradsurgery; "
        "new = set(sys.modules) - before; "
        "print(sorted(m for m in new if 'scipy' in m or 'cvxpy' in m))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"


def test_every_file_says_what_it_is():
    for path in [
        *PACKAGE.rglob("*.py"),
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
    ]:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_public_names_are_documented_with_examples():
    for name in gs.__all__:
        assert getattr(gs, name).__doc__, name
    for name in gs.strategy_names():
        chosen = registered(name)
        if chosen.shipped:
            assert ">>>" in chosen.description, name
            assert chosen.paper


def test_no_strategy_name_in_a_condition():
    """A strategy's name occurs in no `if`: nothing in the package is compared with one."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                constants = {
                    c.value
                    for c in ast.walk(node)
                    if isinstance(c, ast.Constant) and isinstance(c.value, str)
                }
                options = (
                    {"sum", "mean"}
                    if path.parent.name == "strategies"
                    or path.name in ("config.py", "functional.py")
                    else set()
                )
                assert not (constants & set(gs.strategy_names())) - options, (path, constants)


def test_readme_names_every_strategy_and_the_commands_are_single_lines():
    text = (ROOT / "README.md").read_text()
    table = text.split("## Strategies")[1]
    for name in gs.strategy_names():
        if registered(name).shipped:
            assert f"`{name}`" in table, name
    commands = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.S)
        for line in block.splitlines()
        if line.strip()
    ]
    assert len(commands) == 2
    assert all("-c constraints.txt" in command for command in commands)
    assert "torch==" in (ROOT / "constraints.txt").read_text()


def test_no_two_files_import_each_other():
    """Imports within functions count: they would only hide a circle. So do those through others."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for part in ("gradsurgery", "benchmarks")
        for path in (ROOT / part).rglob("*.py")
    }
    arrows = {name: imported(path, files) - {name} for name, path in files.items()}
    assert arrows["gradsurgery.solvers.min_norm"] >= {"gradsurgery.solvers.reference"}
    assert arrows["benchmarks.peers"] >= {"benchmarks.memory", "gradsurgery.errors"}
    graphlib.TopologicalSorter(arrows).prepare()  # raises with the circle, where there is one


def imported(path, files):
    """The files, by the names of their modules, that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in files else node.module)
    return found & set(files)


def test_no_file_is_longer_than_300_lines():
    for part in ("gradsurgery", "benchmarks", "examples", "docs", "tests"):
        for path in (ROOT / part).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 300, path

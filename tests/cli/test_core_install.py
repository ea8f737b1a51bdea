"""The command line of a core install: what works without extras, and what the others say."""

import sys

import pytest

import gradsurgery as gs
from gradsurgery import cli
from gradsurgery.commands import CORE, MORE

EXTRAS = ("typer", "rich", "jinja2", "matplotlib", "mlxtend", "pandas")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command where no extra is installed: its exit status, output and errors."""
    for name in [m for m in sys.modules if m.partition(".")[0] in EXTRAS]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradsurgery", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capsys.readouterr()

    return run


def test_list_has_every_strategy_within_80_columns(command):
    code, out, err = command("list")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for name in gs.strategy_names():
        assert f"\n{name}" in out
    for word in ("inputs", "acts", "scale", "claims", "paper", "2405.17730", "non-conflicting*"):
        assert word in out


def test_describe_and_version_are_as_ever(command):
    from gradsurgery.contract.catalogue import describe
    from gradsurgery.contract.registry import registered

    assert command("describe", "cagrad") == (0, describe(registered("cagrad")) + "\n", "")
    assert command("--version") == (0, gs.__version__ + "\n", "")
    code, _, err = command("describe", "mgad")
    assert code == 2
    assert "Did you mean 'mgda'?" in err


def test_help_names_what_there_is_and_the_extra_of_the_others(command):
    for words in ((), ("--help",)):
        code, out, err = command(*words)
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert "gradsurgery[compare]" in out
        assert all(name in out for name in (*CORE, *MORE))
    code, out, _ = command("describe", "-h")
    assert code == 0
    assert "The strategy's name, as in 'gradsurgery list'." in " ".join(out.split())


@pytest.mark.parametrize("name", MORE)
def test_the_other_commands_name_their_extra(name, command):
    code, out, err = command(name)
    assert (code, out) == (2, "")
    assert f"gradsurgery {name} needs rich: pip install 'gradsurgery[compare]'" in err


def test_an_unknown_command_has_its_nearest_match(command):
    code, _, err = command("descrbe")
    assert code == 2
    assert "unknown command 'descrbe'. Did you mean 'describe'?" in err


def test_the_two_command_lines_have_the_same_commands():
    import typer

    made = typer.main.get_command(cli.app())
    assert set(made.commands) == {*CORE, *MORE}

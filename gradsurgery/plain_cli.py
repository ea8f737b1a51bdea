"""The command line of a core install, where typer is missing: list, describe, cite."""

import argparse
import inspect
from collections.abc import Sequence

import gradsurgery
from gradsurgery.commands import CORE, MORE, arguments
from gradsurgery.errors import InputError, MissingExtraError, one_of


def run_plainly(words: Sequence[str], missing: MissingExtraError) -> None:
    """Run the command that the words name.

    Args:
        words: of the command line, without the program's name.
        missing: why there is no more than these commands.

    Raises:
        MissingExtraError: for a command that needs the extra; it names the command.
        InputError: for an unknown command.
    """
    first = words[0] if words else "--help"
    if first in MORE:
        needs = str(missing).partition(" needs ")[2]
        raise MissingExtraError(f"gradsurgery {first} needs {needs}", name=missing.name)
    if not first.startswith("-") and first not in CORE:
        raise InputError(one_of("command", first, (*CORE, *MORE)))
    given = vars(_parser().parse_args(words or ["--help"]))
    CORE[given.pop("command")](**given)


def _parser() -> argparse.ArgumentParser:
    more = f"With the extra compare (pip install 'gradsurgery[compare]'): {', '.join(MORE)}."
    parser = argparse.ArgumentParser(
        "gradsurgery",
        description="Several losses, one step: gradient surgery for PyTorch.",
        epilog=more,
    )
    parser.add_argument("--version", action="version", version=gradsurgery.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in CORE.items():
        text = inspect.getdoc(command) or ""
        made = commands.add_parser(name, help=text.partition("\n")[0], description=text)
        for argument in arguments(command):
            several = None if argument.kind is str else "*"
            made.add_argument(argument.name, nargs=several, help=argument.help)
    return parser

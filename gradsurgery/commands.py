"""The commands that need no extra: `gradsurgery list | describe | cite`.

A command is a function with a docstring. The text beside an argument's type is its help. The
command line is made of them with typer, or without it where that is not installed.
"""

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, get_type_hints

Command = Callable[..., None]
MORE = ("compare", "report", "study", "check")  # what the extra compare brings


class Argument(NamedTuple):
    """What one argument of a command is, as written in its annotation."""

    name: str
    kind: Any
    help: str


def list_() -> None:
    """List every strategy: its inputs, what it acts on, its scale, its claims, its source."""
    from gradsurgery.contract.catalogue import LEGEND, listing, overview
    from gradsurgery.contract.registry import registered, strategy_names

    strategies = [registered(name) for name in strategy_names()]
    console = None
    with contextlib.suppress(ImportError):
        from rich.console import Console

        console = Console(highlight=False)
    if console is None:
        print(listing(strategies), "", textwrap.fill(LEGEND, 80), sep="\n")
        return
    console.width = max(80, console.width)  # a narrower table would lose columns
    console.print(overview(strategies))
    console.print(f"\n{LEGEND}", markup=False)


def describe(name: Annotated[str, "The strategy's name, as in 'gradsurgery list'."]) -> None:
    """Describe one strategy: its maths, what it promises and when, its options and defaults."""
    from gradsurgery.contract.catalogue import describe as text
    from gradsurgery.contract.registry import get_strategy, registered

    # not typer's echo, which writes UTF-8 to a console that is ASCII
    print(text(get_strategy(name) if "(" in name else registered(name)))


def cite(
    names: Annotated[list[str] | None, "Names, as in 'cite mmpareto cagrad'."] = None,
) -> None:
    """Print the BibTeX entries of strategies' papers; without a name, that of this library."""
    from gradsurgery.citing import cited, ours

    print(cited(names) if names else ours())


CORE: dict[str, Command] = {"list": list_, "describe": describe, "cite": cite}


def arguments(command: Command) -> Iterator[Argument]:
    """The arguments of a command: its parameters, each with its type and its help."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        if name != "return":
            kind, text = hint.__origin__, hint.__metadata__[0]
            yield Argument(name, kind, text)


def for_typer(command: Command) -> Command:
    """The command with the help of its arguments in the form that typer reads."""
    import typer

    hints = {
        found.name: Annotated[found.kind, typer.Argument(help=found.help, show_default=False)]
        for found in arguments(command)
    }
    signature = inspect.signature(command)
    given = [p.replace(annotation=hints[name]) for name, p in signature.parameters.items()]

    def called(**values: Any) -> None:
        command(**values)

    called.__doc__ = command.__doc__
    called.__annotations__ = hints
    called.__signature__ = signature.replace(parameters=given)  # type: ignore[attr-defined]  # for inspect
    return called

"""`gradsurgery check`: the conformance checks on a function of one's own."""

import contextlib
import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

from gradsurgery.errors import InputError

if TYPE_CHECKING:
    import typer

MOST = 100  # objectives: with more a property takes minutes


def add_check(made: "typer.Typer") -> None:
    """Add the command to the application."""
    import typer

    @made.command()
    def check(
        function: Annotated[
            str,
            typer.Argument(
                help="module:function, path/to/file.py:function, or a strategy's name, in quotes "
                "where it has options: 'cagrad(c=0.4)'.",
                show_default=False,
            ),
        ],
        input: Annotated[
            str | None,
            typer.Option(
                help="What it takes: gram (G, numpy [n, n], for weights [n]) or rows (J, torch "
                "[n, d], for the direction [d]). Default: by its parameter's name, then by trying.",
                metavar="gram|rows",
                show_default=False,
            ),
        ] = None,
        claims: Annotated[
            list[str] | None,
            typer.Option(
                help="What it promises, separated by commas, as in 'strict,homogeneous(1)'; a "
                "shell wants the quotes. Default: every property is tried, and none is promised.",
                metavar="NAMES",
                show_default=False,
            ),
        ] = None,
        like: Annotated[
            str | None,
            typer.Option(
                help="A strategy whose claims it promises too, as in pcgrad for a PCGrad of your "
                "own.",
                metavar="STRATEGY",
                show_default=False,
            ),
        ] = None,
        draws: Annotated[
            int, typer.Option(help="How many adversarial Jacobians.", metavar="N")
        ] = 600,
        seed: Annotated[int, typer.Option(help="Another seed, other draws.", metavar="N")] = 0,
        objectives: Annotated[
            str | None,
            typer.Option(
                help="The numbers of objectives, as in 2, 2,3 or 2-8. Default: 1 to 33.",
                metavar="N",
                show_default=False,
            ),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Check a function of your own: which properties it has, and where it fails.

        It takes the Gram matrix G and returns weights, or the gradients J and returns the
        direction. It is tried on adversarial gradients. Each property that does not hold is shown
        on the smallest gradients found. The exit status is 1 where the contract of a call or a
        claim does not hold, and 2 where nothing could be tried.
        """
        from gradsurgery.compare import split_list
        from gradsurgery.testing import check_function
        from gradsurgery.testing.like import claims_like
        from gradsurgery.testing.locate import locate

        promised = [*(split_list(claims) if claims else ()), *(claims_like(like) if like else ())]
        sizes = None if objectives is None else parse_sizes(objectives)
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # what a module prints is no part of the report
            chosen = locate(function)
        found = check_function(
            chosen,
            input=input,
            claims=promised or None,
            draws=draws,
            seed=seed,
            objectives=sizes,
            name=function,
            progress=_progress,
        )
        _progress("")
        # not typer's echo, which writes UTF-8 to a console that is ASCII
        print(json.dumps(found.as_dict(), indent=2) if as_json else found)
        raise typer.Exit(0 if found.passed else 1)


def parse_sizes(text: str) -> list[int]:
    """Numbers of objectives from a command line: "2", "2,3", "2-8".

    Raises:
        InputError: when they cannot be read.

    Example:
        >>> parse_sizes("2,4-6")
        [2, 4, 5, 6]
    """
    found: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", piece)
        if match is None:
            raise InputError(f"--objectives {text!r}: write numbers, as in 2, 2,3 or 2-8.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not found or min(found) < 1 or max(found) > MOST:
        raise InputError(f"--objectives {text!r}: expected numbers from 1 to {MOST}.")
    return found


def _progress(name: str) -> None:
    """The property that is being tried, on a terminal alone."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\033[K{name and f'trying: {name}'}", end="", file=sys.stderr, flush=True)

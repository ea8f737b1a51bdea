"""The signature and the texts of `config_of`, for what takes the same settings."""

import inspect
import re
import textwrap
from collections.abc import Callable, Collection
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from gradsurgery.engine.config import SETTINGS, Config, config_of

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)  # where the text of a parameter begins
OWN = ("strategy", "parameters", "**options")  # a function has its own texts of these
PLACE = re.compile(r"^( *)\{settings\}$", re.MULTILINE)


def takes_settings_of(
    make: Callable[P, Config],
) -> Callable[[Callable[[T, Config], None]], Callable[Concatenate[T, P], None]]:
    """Have a constructor that takes a Config take what `make` makes one of.

    Type checkers then know all settings too. That works where nothing else is taken beside them.
    """

    def decorate(init: Callable[[T, Config], None]) -> Callable[Concatenate[T, P], None]:
        def call(self: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
            init(self, make(*args, **kwargs))

        own = next(iter(inspect.signature(init).parameters.values()))
        parameters = [own, *_parameters()]
        signature = inspect.Signature(parameters, return_annotation=None)
        call.__signature__ = signature  # type: ignore[attr-defined]  # as inspect reads it
        update_wrapper(call, init)
        make.__qualname__ = init.__qualname__  # what Python's own errors of its call say
        return call

    return decorate


def shows_settings(without: Collection[str]) -> Callable[[F], F]:
    """Have a function that passes on `**settings` show them in its signature and its docstring.

    Type checkers see `**settings: Any`: Python has no type for known keywords beside free ones,
    which are the strategy's options.

    Args:
        without: the settings that it does not take.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())
        first = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
        rest = [p for p in own if p.kind is p.KEYWORD_ONLY]
        *settings, options = _parameters()[2:]
        settings = [p for p in settings if p.name not in without]
        both = signature.replace(parameters=[*first, *settings, *rest, options])
        function.__signature__ = both  # type: ignore[attr-defined]  # as inspect reads it
        function.__doc__ = with_texts(function.__doc__, {*without, *OWN})
        return function

    return decorate


def with_texts(docstring: str | None, without: Collection[str] = ()) -> str | None:
    """A docstring with the texts of the settings in the place of the line "{settings}"."""
    if docstring is None or config_of.__doc__ is None:  # python -OO
        return docstring
    block = inspect.cleandoc(config_of.__doc__).partition("Args:\n")[2].partition("\n\n")[0]
    texts = ENTRY.split(textwrap.dedent(block))
    left_out = tuple(f"{name}:" for name in without)
    kept = "".join(text for text in texts if not text.startswith(left_out)).rstrip()
    return PLACE.sub(lambda place: textwrap.indent(kept, place[1]), docstring)


def _parameters() -> list[inspect.Parameter]:
    """The parameters of `config_of`, without the marks on their annotations."""
    plain = get_type_hints(config_of)
    found = inspect.signature(config_of).parameters.values()
    return [p.replace(annotation=plain[p.name]) if p.name in SETTINGS else p for p in found]

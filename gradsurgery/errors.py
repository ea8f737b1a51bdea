"""The exceptions of gradsurgery, each also the built-in type that a caller would expect."""

import contextlib
import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

# Frames of these are never the line of whoever called the package.
FOLDERS = tuple(str(Path(file).parent) + os.sep for file in (__file__, torch.__file__))
WITHIN = (*FOLDERS, contextlib.__file__)
WHOLE_WORD = 6  # letters from which another name may be misspelt and still hint at its strategy


class GradSurgeryError(Exception):
    """Base of every error raised by this library."""


class InputError(GradSurgeryError, ValueError):
    """An argument, a loss, a Gram matrix or a saved state that cannot be used."""


class StrategyError(GradSurgeryError, ValueError):
    """A strategy that is declared wrongly, misses an input, or returned something unusable."""


class UnknownNameError(GradSurgeryError, LookupError, ValueError):
    """A name of a strategy or an option that does not exist.

    The message has the nearest match and the list.
    """


class NonFiniteError(GradSurgeryError, ArithmeticError, ValueError):
    """A NaN or an infinity in a loss, a gradient, or a direction."""


class OutOfRangeError(NonFiniteError):
    """Something became infinite on the way; under a GradScaler an overflow as others are."""


class SolverError(GradSurgeryError, RuntimeError):
    """A solver that cannot run, for example because its optional dependency is missing."""


class OptimizerError(GradSurgeryError, RuntimeError):
    """An optimizer's step that failed, or what follows it; the message says what stands."""


class RankError(GradSurgeryError, RuntimeError):
    """Another rank of the process group could not go on; the message names it and its error."""


class MissingExtraError(GradSurgeryError, ImportError):
    """An optional dependency that is not installed; the message names the extra that brings it."""


class ConformanceError(GradSurgeryError, AssertionError):
    """A strategy that does not keep a promise.

    The message has the claim, and the smallest failing Jacobian that was found.
    """


Synonyms = Mapping[str, Iterable[str]]


def one_of(what: str, given: str, known: Iterable[str], also: Synonyms | None = None) -> str:
    """The sentence for an unknown name: what was given, the nearest match, and what is accepted.

    `also` has other names that some of the known ones go by; they are hints and are not listed.
    """
    names = list(known)
    near = nearest(given, names, also)
    hint = "" if near is None else f" Did you mean {near!r}?"
    return f"unknown {what} {given!r}.{hint} Known: {', '.join(names) or 'none'}."


def nearest(
    given: str,
    known: Iterable[str],
    also: Synonyms | None = None,
    cutoff: float = 0.5,
) -> str | None:
    """The known name that was probably meant; case, hyphens, underscores and spaces do not count.

    `also` is as in `one_of`; `cutoff` is difflib's, from 0 for any name to 1 for the same one.
    """
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    others: dict[str, str] = {}
    for name, synonyms in (also or {}).items():
        for synonym in synonyms:
            others.setdefault(_plain(synonym), name)
    spelled = _plain(given)
    if spelled in plain or spelled in others:
        return plain.get(spelled) or others[spelled]
    # An abbreviation of two or three letters is near to half of all names.
    pool = {**{word: name for word, name in others.items() if len(word) >= WHOLE_WORD}, **plain}
    near = difflib.get_close_matches(spelled, pool, n=1, cutoff=cutoff)
    return pool[near[0]] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).casefold()


@contextlib.contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """A context for the import of an optional dependency, whose error then names the extra.

    Args:
        name: the extra that brings it.
        what: what needs it.

    Raises:
        MissingExtraError: in place of the ImportError; it names the extra and the command.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "it").partition(".")[0]
        why = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        message = f"{what} needs {package}{why}: pip install 'gradsurgery[{name}]'."
        raise MissingExtraError(message, name=error.name) from error


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the caller outside this package, however deep within it the cause is."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _within(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _within(filename: str) -> bool:
    return filename.startswith(WITHIN)

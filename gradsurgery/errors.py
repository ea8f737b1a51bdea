"""The exceptions of gradsurgery: one small tree, each also the built-in type a caller would expect."""

import difflib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

PACKAGE = str(Path(__file__).parent)


class GradSurgeryError(Exception):
    """Base of every error raised by this library."""


class InputError(GradSurgeryError, ValueError):
    """An argument, a loss, a Gram matrix or a saved state that cannot be used."""


class StrategyError(GradSurgeryError, ValueError):
    """A strategy that is declared wrongly, misses an input, or returned something unusable."""


class UnknownNameError(GradSurgeryError, LookupError, ValueError):
    """A strategy or option name that does not exist; the message has the nearest match and the list."""


class NonFiniteError(GradSurgeryError, ArithmeticError, ValueError):
    """A NaN or an infinity in a loss, a gradient, or a direction."""


class SolverError(GradSurgeryError, RuntimeError):
    """A solver that cannot run, for example because its optional dependency is missing."""


class MissingExtraError(GradSurgeryError, ImportError):
    """An optional dependency that is not installed; the message names the extra that brings it."""


class ConformanceError(GradSurgeryError, AssertionError):
    """A strategy that does not keep a promise; the message has the smallest failing Jacobian and the claim it breaks."""


def one_of(what: str, given: str, known: Iterable[str]) -> str:
    """The sentence for an unknown name: what was given, the nearest match, and everything that is accepted."""
    names = list(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5) or difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {given!r}.{hint} Known: {', '.join(names) or 'none'}."


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the caller outside this package, however deep within it the reason is found."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _within(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _within(filename: str) -> bool:
    return filename.startswith(PACKAGE) or "torch/_dynamo" in filename or "contextlib" in filename

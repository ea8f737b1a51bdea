"""Modules of the user's own, by name or by path, with errors that show what went wrong."""

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from gradsurgery.errors import InputError, nearest


def load_module(where: str, what: str = "function") -> ModuleType:
    """The module of this name, from the current folder too, or the file of this path.

    Args:
        where: as in `my_module` or `path/to/file.py`.
        what: what is wanted of it, for the message.

    Raises:
        InputError: for what is not there, or fails when imported; with the nearest match.
    """
    return _file(Path(where)) if where.endswith(".py") else _module(where, what)


def _module(name: str, what: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # the console script has its own folder there
        sys.path.insert(0, here)
    try:
        return _imported(name, lambda: importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error  # what the module itself imports
        near = nearest(name, [found.name for found in pkgutil.iter_modules([here])])
        hint = "" if near is None else f" Did you mean {near}?"
        raise InputError(
            f"no module {error.name!r}, neither installed nor in {here}.{hint} "
            f"A file can be named as well: path/to/file.py:{what}."
        ) from error


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        files = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        near = nearest(path.name, files)
        hint = "" if near is None else f" Did you mean {path.parent / near}?"
        raise InputError(f"no file {str(path)!r} in {os.getcwd()}.{hint}")
    sys.path.insert(0, str(path.parent.resolve()))  # so that it finds the files beside it
    name = path.stem if path.stem not in sys.modules else f"{path.stem} (checked)"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # it ends in .py
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module

    def load() -> ModuleType:
        loader.exec_module(module)
        return module

    try:
        return _imported(str(path), load)
    except ModuleNotFoundError as error:
        raise _failed(str(path), error) from error


def _imported(name: str, load: Callable[[], ModuleType]) -> ModuleType:
    """The module, with an error in it as one that shows its lines."""
    try:
        return load()
    except ModuleNotFoundError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> InputError:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    lines = [f"  {f.filename}, line {f.lineno}, in {f.name}: {f.line}" for f in frames]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append(f"  {error.filename}, line {error.lineno}: {(error.text or '').strip()}")
    said = "\n".join([f"{type(error).__name__}: {error}", *lines])
    return InputError(f"{name} cannot be imported: {said}")


def functions_of(module: ModuleType) -> list[str]:
    """The functions and classes that a module itself has."""
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isroutine(thing) or inspect.isclass(thing))
        and getattr(thing, "__module__", None) == module.__name__
    ]

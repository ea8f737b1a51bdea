"""A function by the words `module:function` or `path/to/file.py:function`."""

from typing import Any

from gradsurgery.contract import get_strategy, strategy_names
from gradsurgery.errors import InputError, UnknownNameError, one_of
from gradsurgery.modules import functions_of, load_module


def locate(target: str) -> Any:
    """What `module:function` or `path/to/file.py:function` names, or the strategy of that name.

    Modules are found in the current folder too. A part of a module is named with dots.

    Raises:
        InputError: for a module, a file or a function that is not there, or fails when imported;
            with the nearest match.

    Example:
        >>> from gradsurgery.testing.locate import locate
        >>> locate("math:hypot")(3, 4)
        5.0
    """
    if ":" not in target.partition("(")[0]:  # an option's value may have one
        return _strategy(target)
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise InputError(f"{target!r}: write module:function, or path/to/file.py:function.")
    module = load_module(where)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InputError(f"{where}: {one_of('function', name, functions_of(module))}") from None
    return found


def _strategy(name: str) -> Any:
    try:
        return get_strategy(name)
    except UnknownNameError as error:
        if name.partition("(")[0].strip() in strategy_names():  # it is the option that is unknown
            raise
        raise InputError(
            f"{error} A function of your own is module:function or path/to/file.py:function."
        ) from error

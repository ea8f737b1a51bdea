"""A task of the user's own, by the words `module:function` or `path/to/file.py:function`."""

from collections.abc import Mapping
from typing import Any

from gradsurgery.errors import InputError, one_of
from gradsurgery.modules import load_module


def task_of(target: str, registered: Mapping[str, Any]) -> Any:
    """The task that `module:function` names; after the colon its registered name will do too.

    Args:
        target: the words; without the colon, a file with one task in it.
        registered: every task by name; importing the module adds to it.

    Raises:
        InputError: for a module or a function that is not there, fails when imported, or is no
            task.
    """
    where, _, wanted = target.rpartition(":") if ":" in target else (target, "", "")
    if not where:
        raise InputError(f"{target!r}: write module:function, or path/to/file.py:function.")
    module = load_module(where, "function")
    there = {
        task.load.__name__: task
        for task in registered.values()
        if task.load.__module__ == module.__name__
    }
    if not wanted and len(there) == 1:
        return next(iter(there.values()))
    if wanted in there:
        return there[wanted]
    for task in registered.values():
        # imported from elsewhere into this module, or asked for by the name of @task
        if task.load is getattr(module, wanted, None) or (
            task.name == wanted and task in there.values()
        ):
            return task
    if wanted and hasattr(module, wanted):
        raise InputError(
            f"{target}: {wanted!r} is no task; write "
            f'@gradsurgery.tasks.task("{wanted.replace("_", "-")}", steps=600, lr=(1e-3, 1e-1)) '
            "above it."
        )
    if not there:
        raise InputError(f"{where}: it has no task; write @gradsurgery.tasks.task(...) above one.")
    raise InputError(f"{where}: {one_of('task', wanted, list(there))}")

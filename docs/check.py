"""Fails on a public name without documentation: in its docstring, or missing from the built pages.

`python docs/check.py docs/_build/html/objects.inv`
"""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = (
    "gradsurgery",
    "gradsurgery.contract",
    "gradsurgery.solvers",
    "gradsurgery.testing",
    "gradsurgery.diagnostics",
    "gradsurgery.tasks",
    "gradsurgery.compare",
)
KINDS = (int, float, str, tuple, dict)  # constants, which have no docstring of their own


def undocumented(module: ModuleType) -> Iterator[str]:
    """Public names of a module, and of members of its classes, that have no docstring."""
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, KINDS) or getattr(thing, "__origin__", None) is not None:
            continue
        if not _documented(thing):
            yield f"{module.__name__}.{name}"
        elif inspect.isclass(thing) and thing.__module__.startswith(module.__name__.split(".")[0]):
            for member, value in vars(thing).items():
                if not member.startswith("_") and _is_code(value) and not _documented(value):
                    yield f"{module.__name__}.{name}.{member}"


def missing(module: ModuleType, inventory: set[str]) -> Iterator[str]:
    """Public functions and classes of a module that are on no page."""
    for name in module.__all__:
        thing = getattr(module, name)
        # as imported, where it is at home, or as another public module imports it
        names = {f"{module.__name__}.{name}", f"{getattr(thing, '__module__', '')}.{name}"}
        names |= {f"{other}.{name}" for other in MODULES if _has(other, name, thing)}
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and not names & inventory:
            yield f"{module.__name__}.{name}"


def _has(module: str, name: str, thing: Any) -> bool:
    return getattr(importlib.import_module(module), name, None) is thing


def _is_code(value: Any) -> bool:
    return (
        inspect.isroutine(value)
        or isinstance(value, (property, classmethod, staticmethod))
        or hasattr(value, "func")
    )


def _documented(thing: Any) -> bool:
    text = getattr(thing, "__doc__", None) or ""
    made_by_dataclass = inspect.isclass(thing) and text.startswith(f"{thing.__name__}(")
    return bool(text.strip()) and not made_by_dataclass


def main(path: Path) -> int:
    """Print what is undocumented; the exit status says whether there was any."""
    from sphinx.util.inventory import InventoryFile

    with path.open("rb") as file:
        objects = InventoryFile.load(file, "", lambda base, uri: uri)
    known = (
        {name for kind in objects.values() for name in kind}
        if isinstance(objects, dict)
        else set(objects)
    )
    modules = [importlib.import_module(name) for name in MODULES]
    bad = [f"no docstring: {name}" for module in modules for name in undocumented(module)]
    bad += [f"on no page: {name}" for module in modules for name in missing(module, known)]
    print("\n".join(bad) or f"every public name of {', '.join(MODULES)} is documented.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""The API's pages: one per public object, one per module, and a start with what a loop needs."""

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from prose import paragraph

FRONT = {  # of `gradsurgery`: heading -> names, in the order in which a reader needs them
    "What a loop needs": ("Surgery", "backward", "Record"),
    "Around it": (
        *("GroupRecord", "inspect", "diagnose", "PerExample", "GradientMatrix", "Objectives"),
    ),
    "Strategies": (
        *("get_strategy", "strategy_names", "Strategy", "strategy", "Claim", "when"),
        *("homogeneous", "State"),
    ),
    "Errors": (
        *("GradSurgeryError", "InputError", "UnknownNameError", "StrategyError", "SolverError"),
        *("NonFiniteError", "OptimizerError", "RankError", "MissingExtraError"),
        "ConformanceError",
    ),
}
MODULES = (  # beside it, each on a page of its own; `gradsurgery.contract` has one by hand
    "gradsurgery.diagnostics",
    "gradsurgery.diagnostics.plots",
    "gradsurgery.compare",
    "gradsurgery.compare.statistics",
    "gradsurgery.report",
    "gradsurgery.tasks",
    "gradsurgery.testing",
    "gradsurgery.solvers",
)


def write_api(docs: Path) -> list[str]:
    """Write `api/index.rst`, `api/MODULE.rst` and `api/MODULE.NAME.rst`; return their names.

    Raises:
        ValueError: where `FRONT` and the public names of the package differ.
    """
    package = importlib.import_module("gradsurgery")
    listed = [name for names in FRONT.values() for name in names]
    if sorted(listed) != sorted(package.__all__):
        raise ValueError(f"FRONT in api_pages.py: {set(listed) ^ set(package.__all__)}")
    pages = {f"gradsurgery.{name}": _page(package, name) for name in listed}
    known = {id(getattr(package, name)) for name in listed}
    known |= {id(thing) for thing in vars(importlib.import_module("gradsurgery.contract")).values()}
    for module in map(importlib.import_module, MODULES):
        names = [name for name in _public(module) if id(getattr(module, name)) not in known]
        known |= {id(getattr(module, name)) for name in names}
        pages |= {f"{module.__name__}.{name}": _page(module, name) for name in names}
        pages[module.__name__] = _of_module(module, names)
    pages["index"] = _start(package)
    folder = docs / "api"
    for old in folder.glob("*.rst"):
        if old.stem not in pages:
            old.unlink()
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:  # only what changed is built again
            path.write_text(text)
    return sorted(pages)


def _public(module: ModuleType) -> list[str]:
    """Its `__all__`, or the functions and classes that are its own."""
    own = (name for name, thing in vars(module).items() if _of(thing) == module.__name__)
    names = getattr(module, "__all__", None) or [name for name in own if name[0] != "_"]
    return [name for name in names if not isinstance(getattr(module, name), (int, float, str))]


def _of(thing: Any) -> str | None:
    return getattr(thing, "__module__", None) if _kind(thing) != "data" else None


def _kind(thing: Any) -> str:
    """What Sphinx calls it."""
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if inspect.isroutine(thing) else "data"


def _title(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def _page(module: ModuleType, name: str) -> str:
    thing, full = getattr(module, name), f"{module.__name__}.{name}"
    kind = _kind(thing)
    lines = [*_title(name), f".. auto{kind}:: {full}"]
    if kind == "class":
        lines.append("   :members:")
    if kind == "exception":
        lines.append("   :show-inheritance:")
    return "\n".join([*lines, ""])


def _of_module(module: ModuleType, names: list[str]) -> str:
    return "\n".join(
        [
            *_title(module.__name__.removeprefix("gradsurgery.")),
            *(f".. automodule:: {module.__name__}", "   :no-members:", ""),
            *_table(module, names),
            *_toctree([f"{module.__name__}.{name}" for name in names]),
        ]
    )


def _start(package: ModuleType) -> str:
    lines = [*_title("API"), ".. module:: gradsurgery", "   :no-index:", ""]
    lines += paragraph(
        "Three names are enough for a training loop. ``Surgery`` keeps what a strategy remembers;",
        "``backward`` is the form without memory; a ``Record`` says what a step decided.",
    )
    lines.append("")
    for heading, names in FRONT.items():
        lines += [*_title(heading, "-"), *_table(package, list(names))]
    modules = {f"mod:`{name}`": importlib.import_module(name) for name in MODULES}
    lines += [*_title("Modules", "-"), *_links(modules)]
    lines += paragraph(
        "Who writes a strategy imports from :mod:`gradsurgery.contract`, which",
        ":doc:`/writing_a_strategy` documents. What is not on these pages may change at any time;",
        ":doc:`/internals` says how it works.",
    )
    lines.append("")
    listed = [f"gradsurgery.{name}" for names in FRONT.values() for name in names]
    return "\n".join([*lines, *_toctree([*listed, *MODULES])])


def _table(module: ModuleType, names: list[str]) -> list[str]:
    roles = {"exception": "exc", "class": "class", "function": "func", "data": "data"}
    links = {}
    for name in names:
        thing = getattr(module, name)
        links[f"{roles[_kind(thing)]}:`~{module.__name__}.{name}`"] = thing
    return _links(links)


def _links(links: dict[str, Any]) -> list[str]:
    """A table of links, each with the first paragraph of its docstring."""
    lines = [".. list-table::", "   :widths: 30 70", "   :class: names", ""]
    for role, thing in links.items():
        own = not role.startswith("data")
        said = (inspect.getdoc(thing) or "") if own else "An alias for type annotations."
        first = " ".join(said.split("\n\n")[0].split()).replace("|", r"\|")
        lines += [f"   * - :py:{role}", *paragraph(first, first="     - ")]
    return [*lines, ""]


def _toctree(pages: list[str]) -> list[str]:
    return [".. toctree::", "   :hidden:", "", *(f"   {page}" for page in pages), ""]

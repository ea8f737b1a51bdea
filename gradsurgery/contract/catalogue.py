"""The strategies laid out for a terminal: a table of all, and one in full."""

import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.options import describe_annotation
from gradsurgery.errors import extra

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("Args:", "Returns:", "Raises:", "Example:", "Examples:", "Note:")


WIDTHS = {"inputs": 12, "acts on": 6, "scale": 6, "claims": 24}  # columns of the table of all


def overview(strategies: Iterable[Strategy]) -> "Table":
    """The table of `gradsurgery list`, within 80 columns.

    Its columns are name, inputs, what it acts on, scale, claims and source.
    """
    with extra("compare", "the table of strategies"):
        from rich import box
        from rich.table import Table
        from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 0), show_edge=False, leading=1
    )
    rows = [_cells(strategy) for strategy in strategies]
    for heading, width in _widths(rows).items():
        table.add_column(heading, width=width)
    table.add_column("paper", max_width=40, overflow="fold")
    for name, *cells in rows:
        table.add_row(Text(name, style="bold"), *map(Text, cells))
    return table


def listing(strategies: Iterable[Strategy], width: int = 80) -> str:
    """The same table as plain text, for which nothing needs to be installed."""
    rows = [_cells(strategy) for strategy in strategies]
    widths = _widths(rows)
    widths["paper"] = width - sum(widths.values()) - len(widths)
    lines = [_row(list(widths), widths), "-" * width]
    return "\n".join([*lines, *("\n" + _row(cells, widths) for cells in rows)])


def _row(cells: Iterable[str], widths: Mapping[str, int]) -> str:
    pieces = [
        [part for line in cell.split("\n") for part in textwrap.wrap(line, size) or [""]]
        for cell, size in zip(cells, widths.values(), strict=True)
    ]
    lines = itertools.zip_longest(*pieces, fillvalue="")
    sizes = list(widths.values())
    return "\n".join(
        " ".join(part.ljust(size) for part, size in zip(line, sizes, strict=True)).rstrip()
        for line in lines
    )


def _widths(rows: Iterable[Sequence[str]]) -> dict[str, int]:
    return {"name": max([12, *(len(row[0]) for row in rows)]), **WIDTHS}


def _cells(strategy: Strategy) -> list[str]:
    claims = dict.fromkeys(
        f"{_bare(claim)}*" if claim.condition else str(claim) for claim in strategy.claims
    )
    return [
        strategy.name,
        "\n".join(_declared(strategy)),
        strategy.acts_on,
        strategy.scale,
        "\n".join(claims),
        strategy.source.replace("arXiv:", ""),
    ]


LEGEND = (
    "* under some options only, or under a condition. Papers: arXiv numbers. "
    "In full: gradsurgery describe NAME"
)


def _declared(strategy: Strategy) -> list[str]:
    """Its inputs under any options; with a star those that only some options need."""
    names = _declared_inputs(strategy)
    needed = strategy.inputs if not strategy.required else frozenset(names)
    return [name if name in needed else f"{name}*" for name in names]


def _declared_inputs(strategy: Strategy) -> list[str]:
    return [
        n
        for n, p in inspect.signature(strategy.function).parameters.items()
        if p.kind is not p.KEYWORD_ONLY
    ]


def _bare(claim: object) -> str:
    return str(claim).split(" when ", 1)[0]


def describe(strategy: Strategy, width: int = 80) -> str:
    """One strategy in full: facts, docstring, and options with their defaults.

    Its lines have at most `width` columns, but for formulas and examples.
    """
    facts = {
        "inputs": ", ".join(_declared(strategy)),
        "acts on": {
            "group": "each parameter group",
            "losses": "the losses: one weighted backward pass",
        }[strategy.acts_on],
        "scale": strategy.scale,
        "paper": strategy.source,
        "claims": "\n".join(map(str, strategy.claims)) or "none",
    }
    if strategy.also:
        facts["also"] = ", ".join(strategy.also)
    if strategy.about.use:
        facts["use when"] = strategy.about.use
    if strategy.about.avoid:
        facts["not when"] = strategy.about.avoid
    if strategy.claims and "state" in _declared_inputs(strategy):
        facts["claims"] += "\n(from a fresh state: of its first step)"
    lines = [strategy.name, "=" * len(strategy.name), ""]
    for label, value in facts.items():
        for i, part in enumerate(value.split("\n")):
            lines += textwrap.wrap(
                part,
                width,
                initial_indent=f"{label if i == 0 else '':<10}",
                subsequent_indent=" " * 10,
                break_on_hyphens=False,
            )
    lines += ["", *_reflowed(_without_args(strategy.description), width)]
    explained = explanations(strategy.description)
    if strategy.defaults:
        lines += ["", "Options:"]
        for name, default in strategy.defaults.items():
            shown = "required" if default is inspect.Parameter.empty else f"default {default!r}"
            kind = _kind(strategy, name)
            lines += textwrap.wrap(
                f"{name} ({kind + '; ' if kind else ''}{shown})",
                width,
                initial_indent="  ",
                subsequent_indent="      ",
            )
            lines += textwrap.wrap(
                explained.get(name, ""),
                width,
                initial_indent="      ",
                subsequent_indent="      ",
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _kind(strategy: Strategy, option: str) -> str:
    return describe_annotation(strategy.annotations.get(option))


def _paragraphs(text: str) -> Iterator[tuple[str, str]]:
    """(indent, text) of each run of lines that reads as one; examples stay line by line."""
    block: list[str] = []
    indent = ""

    def flush() -> Iterator[tuple[str, str]]:
        if block:
            yield indent, " ".join(block)
            block.clear()

    example, within = False, None  # the indent of a bullet's lines after its first
    for line in text.splitlines():
        stripped = line.strip()
        own = line[: len(line) - len(line.lstrip())]
        if stripped.startswith("- "):
            yield from flush()
            within = own + "  "
            indent = own
        elif own == within and stripped:
            own = indent
        else:
            within = None
        starts = stripped.startswith(">>>")
        example = bool(stripped) and (starts or example)
        if not stripped or example or own != indent or stripped in HEADINGS:
            yield from flush()
        if not stripped:
            yield "", ""
        elif example or stripped in HEADINGS:
            yield own, "\0" + stripped
            indent = own
        else:
            indent = own
            block.append(stripped)
    yield from flush()


def _reflowed(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for indent, paragraph in _paragraphs(text):
        if paragraph.startswith("\0"):
            lines.append(indent + paragraph[1:])
        else:
            lines += textwrap.wrap(
                paragraph,
                width,
                initial_indent=indent,
                subsequent_indent=indent + ("  " if paragraph.startswith("- ") else ""),
                break_on_hyphens=False,
            ) or [""]
    return lines


def _without_args(text: str) -> str:
    """The docstring without its section on the options, which are listed with their defaults."""
    return re.sub(r"\nArgs:\n(?:(?: .*)?\n)*?(?=\S|\Z)", "\n", text + "\n").strip()


def explanations(text: str) -> dict[str, str]:
    """What a docstring's Args section says of each name."""
    section = re.search(r"^Args:\n((?:(?: .*)?\n)*)", text + "\n", re.M)
    found: dict[str, str] = {}
    name = ""
    for line in (section[1] if section else "").splitlines():
        entry = re.match(r" {4}(\w+): (.*)", line)
        if entry:
            name, found[entry[1]] = entry[1], entry[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found

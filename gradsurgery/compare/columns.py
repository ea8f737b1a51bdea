"""Tables for a terminal of a given width: what does not fit beside goes below, uncut."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradsurgery.errors import extra

if TYPE_CHECKING:
    from rich.table import Table

BETWEEN = 3  # columns of the terminal that rich puts beside each of ours
FIRST = 20  # of the first column at least, where a table would otherwise not fit


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: may be of several lines; it is broken between words where it has to be.
        cells: never broken, except for those of the first column.
        left: whether it is aligned to the left.
    """

    heading: str
    cells: Sequence[str]
    left: bool = False

    @property
    def least(self) -> int:
        """The width that its cells and the words of its heading need."""
        return max(map(len, [*self.heading.split(), *self.cells]), default=1)

    @property
    def natural(self) -> int:
        """The width with the lines of its heading unbroken."""
        return max(map(len, [*self.heading.split("\n"), *self.cells]), default=1)


def tables(
    title: str, first: Column, parts: Sequence[Sequence[Column]], width: int | None = None
) -> "list[Table]":
    """One table, or several of the same rows where a width does not have room for all columns.

    Args:
        title: of the first one.
        first: the column that each of them begins with.
        parts: the other columns, in parts that stay together where they can.
        width: of the terminal; None is one table, of which a narrow console breaks the cells.
    """
    least = min(first.natural, FIRST)
    made: list[list[Column]] = [[]]
    for part in filter(None, parts):
        if width is not None and made[-1] and _taken(least, [*made[-1], *part]) > width:
            made.append([])
        for column in part:
            if width is not None and made[-1] and _taken(least, [*made[-1], column]) > width:
                made.append([])
            made[-1].append(column)
    titles = [title, *(f"{title.partition(':')[0]}, continued" for _ in made[1:])]
    return [_drawn(t, first, columns, width) for t, columns in zip(titles, made, strict=True)]


def _taken(label: int, columns: Sequence[Column]) -> int:
    """The width of a table whose first column has this one."""
    return label + BETWEEN - 1 + sum(column.least + BETWEEN for column in columns)


def _drawn(title: str, first: Column, columns: Sequence[Column], width: int | None) -> "Table":
    with extra("compare", "the table"):
        from rich import box
        from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    widths: list[int | None]
    if width is None:  # the console that prints it decides
        label, widths = None, [None] * len(columns)
    else:
        label, widths = _widths(first, columns, width)
    least = min(first.natural, FIRST)
    made.add_column(first.heading, overflow="fold", width=label, min_width=least)
    for column, wide in zip(columns, widths, strict=True):
        made.add_column(column.heading, justify="left" if column.left else "right", width=wide)
    for cells in zip(first.cells, *(column.cells for column in columns), strict=True):
        made.add_row(*cells)
    return made


def _widths(first: Column, columns: Sequence[Column], width: int) -> tuple[int, list[int | None]]:
    """Of the first column and of the others; what is left over keeps headings in one piece."""
    label = first.natural
    label = max(min(label, FIRST), min(label, width - _taken(0, columns)))
    widths = [column.least for column in columns]
    room = width - _taken(label, columns)
    while room > 0 and any(w < c.natural for w, c in zip(widths, columns, strict=True)):
        for k, column in enumerate(columns):
            if widths[k] < column.natural and room > 0:
                widths[k] += 1
                room -= 1
    return label, [*widths]


def form_of(figures: Iterable[float]) -> str:
    """How the figures of a column are written: percentages with one decimal, smaller ones with as
    many as give their usual size three digits.

    Example:
        >>> from gradsurgery.compare.columns import form_of, written
        >>> written(90.123, form_of([90.0, 88.0])), written(0.0871, form_of([0.128, 0.0871, 0.1]))
        ('90.1', '0.087')
    """
    sizes = [abs(x) for x in figures if math.isfinite(x) and x]
    size = statistics.median(sizes) if sizes else 1.0
    if size >= 10:
        return ".1f"
    digits = 2 - math.floor(math.log10(size))
    return f".{digits}f" if digits <= 5 else ".2e"


def written(figure: float, form: str) -> str:
    """A figure in a column's form; one that is far larger, of a run that diverged, is short."""
    return f"{figure:.3g}" if abs(figure) >= 1e5 else f"{figure:{form}}"

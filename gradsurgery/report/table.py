"""A table as data: what HTML and Markdown are written from."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        value: what it is sorted by; None stands after all others.
        note: a second line, in smaller letters.
        mark: the class that colours it: a verdict, or "warning".
        drawing: SVG beside the text.
        hint: what a short text stands for, shown when a pointer rests on it.
    """

    text: str
    value: float | str | None = None
    note: str = ""
    mark: str = ""
    drawing: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """One row; a `grey` one is a baseline, which stays above the others."""

    cells: tuple[Cell, ...]
    grey: bool = False


@dataclass(frozen=True)
class Table:
    """Headings and rows.

    Attributes:
        headings: of the columns.
        rows: the baselines first.
        notes: what the headings mean.
    """

    headings: tuple[Cell, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def parts(self) -> tuple[tuple[Row, ...], ...]:
        """The baselines, then the others: each part is sorted by itself."""
        grey = tuple(row for row in self.rows if row.grey)
        return grey, tuple(row for row in self.rows if not row.grey)


def text_cells(*texts: str) -> tuple[Cell, ...]:
    """Cells with a text each, sorted by it."""
    return tuple(Cell(text, text) for text in texts)

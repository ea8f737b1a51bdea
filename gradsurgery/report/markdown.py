"""A report as Markdown."""

from collections.abc import Iterable

from gradsurgery.report.page import Page
from gradsurgery.report.table import Cell, Table


def as_markdown(page: Page) -> str:
    """The verdicts, the tables and the facts; charts are in the page of HTML alone."""
    parts = [f"# {page.title}"]
    if page.started:
        parts.append(f"Begun {page.started}.")
    parts += page.notes
    for task in page.tasks:
        parts += [f"## {task.name}", task.heading, _listed(task.verdicts), _table(task.table)]
        parts += [f"{chart.title}: see report.html." for chart in task.charts]
        if task.conflicts is not None:
            parts += ["### Conflicts by parameter group", _table(task.conflicts)]
        if task.gradients is not None:
            parts += ["### Gradients along runs of sum", _table(task.gradients)]
        if task.cost is not None:
            parts += ["### Time and memory", _table(task.cost)]
    if page.ranks is not None:
        parts.append(page.ranks)
    if page.failures is not None:
        parts += ["## Failed runs", _table(page.failures)]
    parts += ["## Limitations", _listed(page.limitations)]
    parts += ["## Rules", _listed(f"**{_escaped(name)}**: {said}" for name, said in page.rules)]
    parts += ["## Machine and versions"]
    parts.append(_listed(f"**{_escaped(name)}**: {said}" for name, said in page.machine))
    parts += ["## Make it again", f"```sh\n{page.command}\n```"]
    return "\n\n".join(parts) + "\n"


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(table: Table) -> str:
    headings = [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in table.headings]
    lines = [headings, ["---"] * len(headings)]
    lines += [[_said(cell) for cell in row.cells] for row in table.rows]
    drawn = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
    return "\n\n".join([drawn, *table.notes])


def _said(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _escaped(text: str) -> str:
    """Within a cell: no bar and no line of its own."""
    return " ".join(text.replace("|", "\\|").split())

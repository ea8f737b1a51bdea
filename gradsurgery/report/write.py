"""A report as files: `report.html`, which needs nothing else, and `report.md`."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import gradsurgery
from gradsurgery.compare.choice import Line
from gradsurgery.compare.journal import MEASURED, cut_off, lines_of
from gradsurgery.compare.results import read_results
from gradsurgery.errors import InputError, extra
from gradsurgery.report.markdown import as_markdown
from gradsurgery.report.page import Page, page_of

TEMPLATES = Path(__file__).parent / "templates"


def as_html(page: Page) -> str:
    """One page with its styles, scripts and drawings within.

    Raises:
        MissingExtraError: without jinja2.
    """
    with extra("compare", "the report"):
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(page=page, version=gradsurgery.__version__)


def diagnoses(folder: Path) -> list[Line]:
    """The diagnoses of a comparison: within its folder, or beside it where it is of a study.

    Raises:
        InputError: for files that cannot be read as lines.
    """
    own = [x for path in sorted((folder / MEASURED).glob("*.jsonl")) for x in lines_of(path)]
    beside = sorted((folder.resolve().parent / MEASURED).glob("*.jsonl"))
    others = [x for path in beside for x in lines_of(path)]
    return [
        line
        for line in [*own, *(x for x in others if x.get("part") == folder.resolve().name)]
        if line["kind"] == "diagnosis"
    ]


def write_report(
    folder: Path | str, say: Callable[[str], None] = lambda note: None
) -> tuple[Path, Path]:
    """Write the report of a comparison into its folder.

    Args:
        folder: that `gradsurgery compare` wrote to; its results may be of several files, and need
            not be complete.
        say: given each note about what could not be read; the report has them too.

    Returns:
        The paths of report.html and report.md; what was there is replaced.

    Raises:
        InputError: for a folder without results or without a run, or where nothing can be written.
        MissingExtraError: without jinja2.

    Example:
        >>> from gradsurgery.report import write_report
        >>> write_report("comparisons/20260102-030405")  # doctest: +SKIP
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that `gradsurgery compare` wrote.")
    try:
        notes = [*cut_off(folder), *cut_off(folder / MEASURED)]
        page = page_of(read_results(folder), notes, diagnoses(folder))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    for note in page.notes:
        say(note)
    made = {folder / "report.html": as_html(page), folder / "report.md": as_markdown(page)}
    for path, text in made.items():
        begun = path.with_name(f".{path.name}.{os.getpid()}")  # the report before stays till then
        try:
            begun.write_text(text, encoding="utf-8")
            begun.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                begun.unlink()
            raise InputError(f"{path}: the report cannot be written ({error}).") from error
    html, markdown = made
    return html, markdown

"""`gradsurgery report`: a comparison's folder as one page of HTML, and as Markdown."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer


def add_report(made: "typer.Typer") -> None:
    """Add the command to the application."""
    import typer

    @made.command()
    def report(
        folder: Annotated[
            Path,
            typer.Argument(help="The folder that 'gradsurgery compare' wrote.", show_default=False),
        ],
        own: Annotated[
            list[str] | None,
            typer.Argument(
                help="With --diagnose: your own tasks of it, module:function.",
                metavar="[TASKS]...",
                show_default=False,
            ),
        ] = None,
        diagnose: Annotated[
            bool, typer.Option("--diagnose", help="Train sum again and add its diagnosis first.")
        ] = False,
    ) -> None:
        """Write report.html and report.md into the folder of a comparison.

        The page has the verdicts in sentences, a table per task that can be sorted, the response to
        the learning rate, failures, rules, versions and limitations. It needs no network and no
        other file. Comparisons that are not complete have a report of what there is.

        With --diagnose, sum is trained again on each task with three of the seeds, and its
        gradients are measured on the way: conflict beside the control of two batches of one loss,
        and the noise of gradients. That takes some minutes on the tasks that ship.
        """
        from gradsurgery.report import write_report

        if diagnose:
            from gradsurgery.study.measured.folder import diagnose_folder

            diagnose_folder(folder, own or ())

        def said(note: str) -> None:
            print(f"Note: {note}", file=sys.stderr)

        for path in write_report(folder, said):
            # not typer's echo, which writes UTF-8 to a console that is ASCII
            print(path)

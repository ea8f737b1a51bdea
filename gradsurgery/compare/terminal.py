"""A comparison in a terminal: progress bars, then tables and a plot of what there is."""

import contextlib
import itertools
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from gradsurgery import GradSurgeryError, InputError
from gradsurgery.compare.comparison import compare
from gradsurgery.compare.conclusion import conclude
from gradsurgery.compare.curve_plot import plot_curves
from gradsurgery.compare.curves import curves
from gradsurgery.compare.plan import BASELINE, Plan
from gradsurgery.compare.plot import plot_into
from gradsurgery.compare.progress import Bars
from gradsurgery.compare.report import figure_tables, remarks
from gradsurgery.compare.results import Results
from gradsurgery.compare.sentences import rank_sentence, rate_sentences, verdict_sentences
from gradsurgery.compare.summary import summarise
from gradsurgery.compare.verdict_table import verdict_tables
from gradsurgery.errors import extra


def compare_in_terminal(
    plan: Plan, out: Path | str, *, jobs: int = 1, timeout: float | None = None
) -> int:
    """Run a comparison with progress bars, then print and plot what there is, also after Ctrl-C.

    Args:
        plan: what to compare.
        out: the folder for the results; what it holds of the same plan is not done again.
        jobs: processes that train.
        timeout: seconds that a run may take.

    Returns:
        The exit status: 0, 1 where a run failed, 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        InputError: for what cannot be read or written; what is finished is shown first.
        MissingExtraError: without matplotlib or rich, before any training.
    """
    with extra("compare", "the plot"):  # said before hours of training
        import matplotlib  # noqa: F401
    bars = Bars(plan)
    kept: list[Results] = []

    def opened(results: Results) -> None:
        kept.append(results)
        bars.start(
            len(results.cells)
        )  # what can be wrong with the data or the folder has been said by now

    try:
        with bars:
            results = compare(plan, out, bars, on_open=opened, jobs=jobs, timeout=timeout)
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
    # at a rate that is searched, to diverge is an answer
    failed = ("error" in line for line in results.cells if line["kind"] != "tune")
    return 1 if any(failed) else 0


def free_folder(folder: Path) -> Path:
    """This folder, or one with a number where another comparison began in the same second."""
    folders = (folder.with_name(f"{folder.name}-{k}") for k in itertools.count(2))
    return folder if not folder.exists() else next(path for path in folders if not path.exists())


def _report(plan: Plan, results: Results) -> None:
    from rich.console import Console

    wide = max(80, Console().width)  # a narrower table would lose columns
    console: Any = Console(highlight=False, width=wide)
    summary = summarise(results.lines, BASELINE)
    conclusions = conclude(results.lines)
    for conclusion in conclusions.values():
        for sentence in (*verdict_sentences(conclusion), *rate_sentences(conclusion)):
            console.print(sentence, markup=False)
        console.print()
    if (ranks := rank_sentence(conclusions)) is not None:
        console.print(f"{ranks}\n", markup=False)
    rates = set()  # the tasks whose learning rates are said already
    for conclusion in conclusions.values():
        for verdicts in verdict_tables(conclusion, wide):
            console.print(verdicts)
            rates.add(conclusion.task)
    for task, rows in summary.items():
        for part in figure_tables(task, rows, plan.choosing and task not in rates, wide):
            console.print(part)
    for note in (*results.torn, *remarks(summary, plan)):
        console.print(note, markup=False, soft_wrap=False)
    console.print(f"\nresults: {results.path}", markup=False, soft_wrap=True)
    picture = plot_into(summary, results.path.parent)
    console.print(f"plot:    {picture}", markup=False, soft_wrap=True)
    if found := curves(results.lines):
        path = plot_curves(found, results.path.parent)
        console.print(f"curves:  {path}", markup=False, soft_wrap=True)
    folder = shlex.quote(str(results.path.parent))
    console.print(f"a page:  gradsurgery report {folder}", markup=False, soft_wrap=True)


def _interrupted(plan: Plan, bars: Bars, kept: list[Results]) -> int:
    cells = kept[0].cells if kept else []
    if kept and kept[0].runs:
        try:
            _report(plan, kept[0])
        except (GradSurgeryError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr)
    elif kept and not cells:
        kept[0].discard()
    lost = ""
    if bars.current is not None:
        at = f"step {bars.step[0]} of {bars.step[1] or '?'}"
        lost = f" The run at work ({bars.title}, {at}) is not kept."
    where, advice = "", ""
    if cells:
        where = f" in {kept[0].path.parent}"
        advice = " The same command with this --out goes on."
    count = f"{len(cells)} of {bars.total} runs"
    ended = bars.stopped_by == signal.SIGTERM
    word = "Ended by SIGTERM." if ended else "Interrupted."
    print(f"{word}{lost} Kept: {count}{where}.{advice}", file=sys.stderr)
    return 143 if ended else 130

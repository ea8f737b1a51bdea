"""One measurement: what it is of, its key, and the line that says what came of it."""

import hashlib
import importlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradsurgery.compare.cell import versions
from gradsurgery.compare.choice import Line
from gradsurgery.study.declaration import Measured, Part
from gradsurgery.study.evidence import SUM, Evidence
from gradsurgery.study.measured.diagnosed import diagnosed
from gradsurgery.study.measured.flat import flat
from gradsurgery.tasks import get_task

KINDS = {"flatness": flat, "diagnosis": diagnosed}


@dataclass(frozen=True)
class Cell:
    """A measurement of one kind, on one part, with one strategy and seed.

    Attributes:
        kind: "flatness" or "diagnosis".
        part: the name of the part.
        task: its task.
        strategy: what is trained; `sum` for a diagnosis.
        seed: as of a run.
        lr: the learning rate that was chosen for the strategy.
        optimizer: as of the part.
        joint: the joint loss; None where there is none.
        modalities: how many are concatenated; None without a joint loss.
        module: where the task is registered.
        how: the declared settings.
    """

    kind: str
    part: str
    task: str
    strategy: str
    seed: int
    lr: float
    optimizer: str | None
    joint: str | None
    modalities: int | None
    module: str
    how: Measured

    @property
    def key(self) -> str:
        """What tells it from every other."""
        said = {name: x for name, x in asdict(self).items() if name != "module"}
        text = json.dumps(said, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def cells_of(evidence: Evidence, part: Part) -> Iterator[Cell]:
    """The measurements of a part whose learning rates are known; seeds come last."""
    how, task = evidence.declaration.measured, get_task(part.task)
    chosen = {label: line["lr"] for label, line in evidence.choices(part).items()}
    for seed in part.reported[: how.seeds]:
        for kind in part.measured:
            for strategy in how.flat if kind == "flatness" else (SUM,):
                lr = chosen.get(strategy) if part.tune else task.lr
                if lr is None:
                    continue
                yield Cell(
                    kind,
                    part.name,
                    part.task,
                    strategy,
                    seed,
                    lr,
                    part.optimizer,
                    part.primary if part.joint is not None else None,
                    len(part.modalities) if part.joint is not None else None,
                    task.load.__module__,
                    how,
                )


def measure(cell: Cell, data_root: Path | None = None, steps: int | None = None) -> Line:
    """The line of a measurement: its figures, or why there are none.

    Args:
        cell: what to measure.
        data_root: of the task.
        steps: of the run; None is what the task says.
    """
    line: dict[str, Any] = {
        **{name: x for name, x in asdict(cell).items() if name not in ("how", "module")},
        "key": cell.key,
        "versions": versions(),
        "machine": platform.node(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        problem = get_task(cell.task).problem(data_root, cell.seed, steps=steps)
        line |= KINDS[cell.kind](cell, problem)
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {error}"
    line["seconds"] = time.perf_counter() - wall
    line["cpu_seconds"] = time.process_time() - cpu
    return line


def described(cell: Cell) -> dict[str, Any]:
    """A cell as JSON."""
    return asdict(cell)


def restored(given: dict[str, Any]) -> Cell:
    """The cell that was described; the module of its task is imported."""
    importlib.import_module(given["module"])
    how: dict[str, Any] = {
        name: tuple(x) if isinstance(x, list) else x for name, x in given["how"].items()
    }
    return Cell(**{**given, "how": Measured(**how)})

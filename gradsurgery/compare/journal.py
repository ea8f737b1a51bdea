"""Lines of JSON in files that are only added to, so that a killed process loses none of them.

Each process writes a file of its own, one write and one fsync per line. What is torn at the end of
a file is left out by readers. Files of other machines are read too, once they are copied there.
"""

import contextlib
import json
import os
import platform
import re
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from gradsurgery import InputError
from gradsurgery.compare.choice import Line

FILE = "results.jsonl"
MEASURED = "measured"  # the folder of what is measured besides
FIXED = ("batch", "epochs", "steps", "primary")  # of a task, in all parts of a comparison
OTHERS = ("rows*.jsonl", "results*.jsonl")  # of workers, of other machines


def journal_of_worker(folder: Path) -> Path:
    """A path that no other process writes to."""
    host = re.sub(r"\W+", "_", platform.node()) or "host"
    return folder / f"rows-{host}-{os.getpid()}-{time.time_ns()}.jsonl"


def write_line(file: IO[bytes], text: str) -> None:
    """Add a line whole, and wait until it is on the disk.

    What could not be written whole is taken back, since a torn line would spoil those after it.
    """
    data = text.encode() + b"\n"
    end = file.tell()
    try:
        while data:
            data = data[file.write(data) :]
        with contextlib.suppress(OSError):  # a file system that cannot
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            file.truncate(end)
            file.seek(end)
        raise


def unwritten(path: Any, error: OSError, kept: int | None = None) -> str:
    """What to say where a line could not be written, on a full disk for example."""
    before = "those before it" if kept is None else f"the {kept} lines before it"
    before = "the 1 line before it is" if kept == 1 else f"{before} are"
    advice = "Once there is room the same command goes on."
    return f"{path}: a line could not be written ({error}); {before} kept. {advice}"


def differing(name: str, there: Any, now: Any) -> str:
    """The first difference of two plans in one of their settings, as words.

    >>> from gradsurgery.compare.journal import differing
    >>> differing("tasks", {"mine": {"steps": 10}}, {"mine": {"steps": 20}})
    'tasks, mine, steps: 10 there, 20 now'
    """
    if isinstance(there, dict) and isinstance(now, dict):
        key = next(k for k in (*there, *now) if there.get(k, ...) != now.get(k, ...))
        if key not in now or key not in there:
            return f"{name}: {key} " + ("now, not there" if key in now else "there, not now")
        return differing(f"{name}, {key}", there.get(key), now.get(key))
    said = ["none" if x is None else textwrap.shorten(str(x), 60) for x in (there, now)]
    return f"{name}: {said[0]} there, {said[1]} now"


def drop_torn(file: IO[bytes]) -> None:
    """Take back what a killed process left of a line, and go to the end."""
    file.seek(0)
    whole = file.read().rpartition(b"\n")
    file.truncate(len(whole[0]) + len(whole[1]))
    file.seek(0, os.SEEK_END)


def lines_of(path: Path) -> list[Line]:
    """The lines of one file; a last one that was cut off is left out, and `cut_off` says so.

    Raises:
        InputError: for what is not there, cannot be read, or holds other lines.
    """
    return _read(path)[0]


def cut_off(path: Path) -> list[str]:
    """Which files of a folder, or whether this one, ends in a line that was cut off, in sentences.

    A process that is killed while it writes leaves such a line; its cell is trained again.
    """
    files = [path] if path.is_file() else [path / FILE, *_others(path)]
    found = [(file, _read(file)[1]) for file in files if file.is_file()]
    return [
        f"{file.name}, line {number}: cut off, as by a kill, and left out; its cell counts as not "
        "done."
        for file, number in found
        if number is not None
    ]


def _read(path: Path) -> tuple[list[Line], int | None]:
    """The lines of a file, and the number of a last one that was cut off."""
    try:
        texts = path.read_bytes().decode().splitlines()
    except FileNotFoundError as error:
        advice = f"give the folder of a comparison, or its {FILE}"
        raise InputError(f"{path} is not there: {advice}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as results: {error}.") from error
    lines: list[Line] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            line["kind"]
        except (ValueError, TypeError, KeyError) as error:
            torn = number == len(texts) and (number > 1 or path.name != FILE)
            if torn:
                return lines, number
            raise InputError(
                f"{path}, line {number}: not a line of results ({error!r})."
            ) from error
        lines.append(line)
    return lines, None


def lines_in(folder: Path) -> list[Line]:
    """The lines of all files in a folder, each cell once: a result before a failure."""
    first, others = folder / FILE, _others(folder)
    found = lines_of(first) if first.exists() or not others else []
    for path in others:
        found += lines_of(path)
    return once(found)


def _others(folder: Path) -> list[Path]:
    return sorted({path for pattern in OTHERS for path in folder.glob(pattern)} - {folder / FILE})


def once(lines: Iterable[Line]) -> list[Line]:
    """Each cell, setup and timing once; a row with figures stands before one with an error."""
    kept: dict[Any, Line] = {}
    for line in lines:
        key = line.get("key") or _name(line, len(kept))
        if key not in kept or ("error" in kept[key] and "test" in line):
            kept[key] = line
    return list(kept.values())


def together(found: Iterable[list[Line]], paths: Iterable[Path]) -> list[Line]:
    """The lines of several folders: each cell once, and one setup with all tasks and seeds.

    A rate that was chosen stands: runs of another machine at another rate are left out.

    Raises:
        InputError: where a task is not the same in all of them.
    """
    setup: Line = {}
    lines: list[Line] = []
    for part, path in zip(found, paths, strict=True):
        for line in part:
            if line["kind"] == "setup" and "tasks" in line:
                setup = _joined(setup, line, path)
            else:
                lines.append(line)
    lines = once(lines)
    which = ("task", "optimizer", "strategy")
    rates = {tuple(x[n] for n in which): x["lr"] for x in lines if x["kind"] == "choice"}
    kept = [
        line
        for line in lines
        if line["kind"] in ("tune", "choice")
        or rates.get(tuple(line.get(name) for name in which), line.get("lr")) == line.get("lr")
    ]
    return [setup, *kept] if setup else kept


def _joined(setup: Line, line: Line, path: Path) -> Line:
    if not setup:
        return line
    for task, said in line["tasks"].items():
        other = setup["tasks"].get(task, said)
        if wrong := [name for name in FIXED if said.get(name) != other.get(name)]:
            raise InputError(
                f"{path}: its task {task!r} has another {wrong[0]} ({said.get(wrong[0])}, and "
                f"{other.get(wrong[0])} before): these are no parts of one comparison."
            )
    return {
        **setup,
        "tasks": {**line["tasks"], **setup["tasks"]},
        "strategies": {**setup.get("strategies", {}), **line.get("strategies", {})},
        "seeds": sorted({*setup.get("seeds", ()), *line.get("seeds", ())}),
    }


def _name(line: Line, number: int) -> Any:
    """What is the same of lines of one kind that are kept once; rows of before have no key."""
    if line["kind"] == "choice":
        return ("choice", line["task"], line["strategy"], line["optimizer"])
    return (line["kind"], line.get("task")) if line["kind"] in ("setup", "timing") else number

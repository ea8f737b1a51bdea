"""Which declaration rows were made under: its commit and its digest, written beside the rows."""

import json
import subprocess
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from gradsurgery.compare.journal import lines_of
from gradsurgery.errors import InputError
from gradsurgery.study.declaration import Declaration

FILE = "declared.jsonl"
Stamp = dict[str, Any]


def stamp(declaration: Declaration, source: Path, **more: Any) -> Stamp:
    """What is written when a study begins or goes on.

    Args:
        declaration: what is declared.
        source: the file that it is in, for the commit that last changed it.
        more: the command, for example.
    """
    return {
        "kind": "declared",
        "digest": declaration.digest,
        **commit_of(source),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }


def commit_of(source: Path) -> Stamp:
    """The commit that last changed a file, when that was, and whether the file differs from it.

    All are None outside a clone.
    """
    last = _git(source, "log", "-1", "--format=%H %cI", "--", source.name)
    if not last:
        return {"commit": None, "committed": None, "changed": None}
    commit, _, committed = last.partition(" ")
    changed = _git(source, "status", "--porcelain", "--", source.name)
    return {"commit": commit, "committed": committed, "changed": bool(changed)}


def begin(folder: Path, new: Stamp) -> None:
    """Write the stamp of this start.

    Raises:
        InputError: where there are rows under another declaration.
    """
    for old in stamps_of(folder):
        if old["digest"] != new["digest"]:
            raise InputError(
                f"{folder} holds rows of another declaration (committed as "
                f"{old['commit'] or 'unknown'}): the declaration has changed since. Give another "
                "--out, or bring the declaration back."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(new) + "\n")


def stamps_of(folder: Path) -> list[Stamp]:
    """The stamps of a folder, the first start first."""
    path = folder / FILE
    return lines_of(path) if path.is_file() else []


def flags(
    declaration: Declaration, stamps: Iterable[Stamp], lines: Iterable[dict[str, Any]]
) -> list[str]:
    """What speaks against rows as those of a study declared beforehand, a sentence each.

    Args:
        declaration: as it is now.
        stamps: of the starts.
        lines: rows, with the time at which each began.
    """
    stamps = list(stamps)
    began = sorted(_time(line["started"]) for line in lines if "key" in line)
    if not began:
        return []
    if not stamps:
        return ["No declaration was written beside the rows: they were not made by the study."]
    said = []
    if any(one["digest"] != declaration.digest for one in stamps):
        said.append("The declaration has changed since rows were made: it is not that of before.")
    if any(one["commit"] is None for one in stamps):
        said.append("The commit of the declaration is not known: no clone of the repository.")
    if any(one["changed"] for one in stamps):
        said.append("The declaration had changes that were not committed when rows were made.")
    known = [_time(one["committed"]) for one in stamps if one["committed"]]
    older = sum(at < min(known) for at in began) if known else 0
    if older:
        said.append(f"{older} rows are older than the commit of the declaration.")
    return said


def _time(text: str) -> datetime:
    """A time in either of the two forms of a zone: +0000 and +00:00."""
    return datetime.strptime(text.replace("Z", "+0000"), "%Y-%m-%dT%H:%M:%S%z")


def _git(source: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=source.parent, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

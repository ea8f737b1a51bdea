"""Pictures in the folder of a comparison: drawn anew over its own, never over a user's."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gradsurgery import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = "gradsurgery compare"  # in the metadata of the file, near its beginning
BEGINNING = 4096


def save_into(figure: "Figure", folder: Path, name: str) -> Path:
    """Save a figure as PNG under this name, or the first of name-2, ... that is free or ours.

    A reader of the old picture never sees a part of the new one.

    Raises:
        InputError: where it cannot be written; what was begun of it is removed.
    """
    made = io.BytesIO()
    figure.savefig(made, dpi=150, format="png", metadata={"Software": OURS})
    path = next(path for path in _names(folder / name) if not path.exists() or _ours(path))
    begun = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        begun.write_bytes(made.getvalue())
        begun.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            begun.unlink()
        raise InputError(
            f"{path}: the plot cannot be written ({error}); the results are kept. Once it can be, "
            "the same command draws it."
        ) from error
    return path


def _names(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def _ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return OURS.encode() in file.read(BEGINNING)
    except OSError:  # a folder, or one that may not be read
        return False

"""Where in the user's own code an error was raised."""

import site
import sysconfig
import traceback
from pathlib import Path

from gradsurgery import GradSurgeryError

OURS = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<")


def place_of(error: BaseException) -> str | None:
    """The file, the line and the function; None for errors of ours, which say it themselves.

    It is the last call outside of this package, of installed ones and of Python's own.
    """
    if isinstance(error, GradSurgeryError):
        return None
    others = (*OURS, *site.getsitepackages(), site.getusersitepackages())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others)
    ]
    if not frames:
        return None
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"

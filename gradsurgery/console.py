"""Output streams that cannot write all of it: consoles without some signs, disks that are full."""

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from typing import Any

SPELLED = {
    "±": "+-", "−": "-", "·": "*", "×": "x", "⟨": "<", "⟩": ">", "‖": "|", "→": "->", "←": "<-",
    "≥": ">=", "≤": "<=", "∈": "in", "√": "sqrt", "…": "...",
}  # fmt: skip


def accept_any_console() -> None:
    """Let a console that does not know a sign print another one, in place of an error."""
    codecs.register_error("gradsurgery", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="gradsurgery")


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for signs that an encoding lacks: Greek by name, others by the nearest one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = ""
    for sign in error.object[error.start : error.end]:
        name = unicodedata.name(sign, "")
        letter = name.startswith("GREEK") and " LETTER " in name
        greek = name.rpartition(" ")[2].lower() if letter else ""
        plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
        text += SPELLED.get(sign) or greek or plain or "?"
    return text, error.end


def drop_unwritten(stream: Any) -> None:
    """Drop what a stream could not write, so that Python does not try again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)

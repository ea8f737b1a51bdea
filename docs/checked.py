"""The report of `gradsurgery check` on an example, for the page on conformance checks.

`python docs/checked.py` runs the command and renews checked.txt.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ARGUMENTS = ("check", "examples/own_pcgrad.py:pcgrad", "--draws", "100")


def report() -> str:
    """The command, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "gradsurgery", *ARGUMENTS],
        cwd=HERE.parent,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return f"$ gradsurgery {' '.join(ARGUMENTS)}\n{done.stdout}"


if __name__ == "__main__":
    (HERE / "checked.txt").write_text(report(), encoding="utf-8")

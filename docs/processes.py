"""The figures of the page on several processes.

`python docs/processes.py` runs the benchmark (some minutes on two cores) and renews what is in
docs/processes/ and processes.png; with `page` it only writes the tables again.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE / "processes"
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from prose import paragraph  # noqa: E402
from speed import ran, table  # noqa: E402

from benchmarks.processes import halves  # noqa: E402


def page(found: dict) -> str:
    """The measured part of the page."""
    names = list(found["figures"][0]["steps"])
    rows = []
    for row in found["figures"]:
        if row["world"] == 1:
            continue
        sent = [halves(row["steps"], n, row["world"], row["parameters"]) for n in names]
        cpu = [row["steps"][n]["cpu"] for n in names]
        cells = [f"{half:.2f}" for half in sent] + [f"{ms:.0f}" for ms in cpu]
        rows.append([str(row["world"]), str(row["n"]), *cells])
    size = found["figures"][0]["parameters"] / 1e6
    headings = ["W", "n", *(f"{name}: halves" for name in names), *(f"{n}: CPU ms" for n in names)]
    apart = "of its own" if found["own loopback"] else "that other programs share"
    lines = [
        *paragraph(
            f"Measured by ``python -m benchmarks.processes``: {ran(found)} per rank. An MLP with",
            f"{size:.2f} million parameters, {found['batch']} rows per rank, gloo on a loopback",
            f"{apart}; bytes over all ranks, and CPU time of a rank's step with its forward pass.",
        ),
        "",
        *table("a step of W ranks with n objectives", headings, rows),
        ".. image:: processes.png",
        *paragraph(
            "Megabytes per rank and step, and its time, over the number of ranks.",
            first="   :alt: ",
        ),
        "",
        *paragraph(
            "Points are measured. Dotted lines are the formula above, and beyond four ranks only",
            "that: nothing larger was run. Times are those of ranks that share two cores, so that",
            "they say little of ranks with cores of their own.",
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and write its part of the page."""
    KEPT.mkdir(exist_ok=True)
    if "page" not in sys.argv[1:]:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.processes"]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        subprocess.run(
            [*command, "--out", str(KEPT / "figures")], check=True, cwd=HERE.parent, env=environment
        )
        shutil.move(KEPT / "figures.png", HERE / "processes.png")
    found = json.loads((KEPT / "figures.json").read_text())
    (KEPT / "figures.txt").write_text(page(found))


if __name__ == "__main__":
    main()

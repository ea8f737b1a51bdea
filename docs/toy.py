"""The outcomes of the two-parameter toy as a page.

`python docs/toy.py` runs examples/toy.py in full and renews toy.json, toy.png and toy.rst.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prose import paragraph

HERE = Path(__file__).parent
REACHED = 0.1  # as in the example
TITLES = {"nash": "Nash-MTL's version", "cagrad": "CAGrad's version"}
Ends = dict[str, list[dict[str, Any]]]


def place(end: dict[str, Any]) -> str:
    """One cell: the point, and whether it is off the Pareto set."""
    x1, x2 = end["x"]
    return f"({x1:.2f}, {x2:.2f})" + ("" if end["distance"] < REACHED else ", **off**")


def table(title: str, starts: list[list[float]], ends: Ends) -> list[str]:
    """A list-table of a version."""
    lines = [
        f".. list-table:: {title}: where runs end",
        "   :header-rows: 1",
        "",
        "   * - strategy",
    ]
    lines += [f"     - from ({a:g}, {b:g})" for a, b in starts]
    for name, found in ends.items():
        lines += [f"   * - ``{name}``", *(f"     - {place(end)}" for end in found)]
    return [*lines, ""]


def verdict(title: str, ends: Ends) -> list[str]:
    """Which reach the Pareto set from every start, and which do not, in a sentence each."""
    off = {name: sum(end["distance"] >= REACHED for end in found) for name, found in ends.items()}
    reach = [f"``{name}``" for name, count in off.items() if not count]
    stop = [f"``{name}`` (from {count})" for name, count in off.items() if count]
    return paragraph(
        f"{title}: from every start {', '.join(reach) or 'none'};",
        f"off the Pareto set from some {', '.join(stop) or 'none'}.",
        first="* ",
    )


def page(found: dict[str, Any]) -> str:
    """The page from the outcomes."""
    versions = found["versions"]
    steps = " and ".join(f"{count:,}" for count in found["steps"].values())
    lines = [
        *("The two-parameter toy", "=====================", ""),
        *paragraph(
            "Two objectives of two parameters with a curved valley (the tasks ``toy`` and",
            "``toy-cagrad``), descended with Adam at 1e-3 from every start: ``python",
            f"examples/toy.py`` ({found['machine']}, Python {versions['python']}, torch",
            f"{versions['torch']}; {steps} steps; the seed is the number of the start). A run",
            f"counts as on the Pareto set within a distance of {REACHED}. Outcomes:",
            "``docs/toy.json``; renewed by ``python docs/toy.py``.",
        ),
        *("", ".. image:: toy.png"),
        *paragraph(
            "Trajectories of each strategy over the contours of the sum of both losses, with the",
            "Pareto set.",
            first="   :alt: ",
        ),
        "",
        *(
            line
            for version, ends in found["ends"].items()
            for line in verdict(TITLES[version], ends)
        ),
        "",
        *paragraph(
            "``famo`` needs lower bounds that the losses never reach, and here no decay of its",
            "logits. With its default decay of 1e-3 and bounds of -2 and -20 it stopped off the",
            "set from two starts: the logarithms of losses that far above their bounds change too",
            "little to outweigh it.",
        ),
        "",
    ]
    for version, ends in found["ends"].items():
        lines += table(TITLES[version], found["starts"][version], ends)
    return "\n".join(lines)


def main() -> None:
    """Run the example and write the three files."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                str(HERE.parent / "examples" / "toy.py"),
                "--out",
                folder,
                *sys.argv[1:],
            ],
            check=True,
        )
        outcomes = json.loads((Path(folder) / "outcomes.json").read_text())
        (HERE / "toy.rst").write_text(page(outcomes))
        shutil.copy(Path(folder) / "outcomes.json", HERE / "toy.json")
        shutil.copy(Path(folder) / "toy.png", HERE / "toy.png")


if __name__ == "__main__":
    main()

"""The figures of the page on `decide_on=`.

`python docs/decide_on.py` makes the runs that are not in docs/decide_on/runs.jsonl yet (an hour on
one core; it goes on where it was ended) and renews the tables. With `page` it only writes them.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = HERE / "decide_on"
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from prose import paragraph  # noqa: E402
from speed import table  # noqa: E402

from benchmarks.decide_on import CASES, STRATEGIES  # noqa: E402

Rows = list[dict[str, Any]]
RISES = -1e-3  # a cosine of a direction with a gradient that is no rounding


def of_kind(rows: Rows, kind: str) -> Rows:
    """The runs of one kind, in the order of the models."""
    places = {name: i for i, name in enumerate(CASES)}
    own = [row for row in rows if row["cell"]["kind"] == kind]
    return sorted(own, key=lambda row: (places[row["cell"]["model"]], row["cell"]["n"]))


def cost(rows: Rows) -> list[str]:
    """Time of a step over that of the plain sum."""
    cells = []
    for row in of_kind(rows, "cost"):
        name, n, found = row["cell"]["model"], row["cell"]["n"], row["figures"]
        ms, forward = found["milliseconds"], found["forward"]
        pairs = [[ms[f"{s}, {how}"] / ms["sum"] for how in ("full", "part")] for s in STRATEGIES]
        whole = [forward + statistics.median(ms[f"{s}, {how}"] for s in STRATEGIES)
                 for how in ("part", "full")]  # fmt: skip
        own = [f"{full:.2f} → {part:.2f}" for full, part in pairs]
        share = f"{100 * found['deciding'] / found['parameters']:.0f}"
        cells.append([name, str(n), share, f"{ms['sum']:.0f}", *own, f"{whole[0] / whole[1]:.2f}"])
    headings = ["model", "n", "% decide", "sum, ms", *STRATEGIES, "with forward"]
    title = (
        "CPU time of a step over the plain sum's, full surgery → ``decide_on=``; last column: "
        "``decide_on=`` over full surgery with the forward pass, median of the strategies"
    )
    return table(title, headings, cells)


def near(rows: Rows, strategy: str) -> list[str]:
    """The directions compared."""
    cases: dict[tuple[str, int], Rows] = {}
    for row in of_kind(rows, "near"):
        own = [x for x in row["figures"] if x["strategy"] == strategy]
        cases.setdefault((row["cell"]["model"], row["cell"]["n"]), []).extend(own)
    cells = []
    for (name, n), found in cases.items():
        start, later = [x for x in found if not x["step"]], [x for x in found if x["step"]]
        keys = ("full, part", "full, sum")
        begin = [statistics.fmean(x[key] for x in start) for key in keys]
        middle = [statistics.median(x[key] for x in later) for key in keys]
        least = [min(x[key] for x in later) for key in keys]
        nearer = statistics.fmean(x["full, part"] > x["full, sum"] for x in later)
        apart = [statistics.median(x[f"weights, {key}"] for x in later) for key in ("part", "sum")]
        rises = [
            100 * statistics.fmean(x[f"least, {key}"] < RISES for x in later)
            for key in ("full", "part", "sum")
        ]
        cells.append([
            name, str(n), " / ".join(f"{x:.3f}" for x in begin),
            *(f"{a:.3f} ({b:.3f})" for a, b in zip(middle, least, strict=True)),
            f"{100 * nearer:.0f}", " / ".join(f"{x:.2f}" for x in apart),
            " / ".join(f"{x:.0f}" for x in rises), str(len(later)),
        ])  # fmt: skip
    headings = [
        "model",
        "n",
        "start: part / sum",
        "training: part",
        "training: sum",
        "part nearer, %",
        "weights: part / sum",
        "rises, %: full / part / sum",
        "compared",
    ]
    return table(f"cosine with the direction of full surgery, {strategy}", headings, cells)


def listed(seeds: set[int]) -> str:
    """Seeds as they are read."""
    return ", ".join(map(str, sorted(seeds)))


def about(rows: Rows) -> list[str]:
    """Where figures come from."""
    first = rows[0]
    lines = ["", "What decides:", ""]
    for name, case in CASES.items():
        own = [row["cell"] for row in of_kind(rows, "near") if row["cell"]["model"] == name]
        made = {cell["seed"] for cell in own}
        seeds = listed(made)
        for n in case.objectives:
            fewer = {cell["seed"] for cell in own if cell["n"] == n}
            seeds += "" if fewer == made else f"; with n = {n} {listed(fewer) or 'no run'}"
        lines += paragraph(
            f"``{name}``: {case.layer}; batches of {case.batch}, {case.steps} steps compared every",
            f"{case.every}, seeds {seeds}.",
            first="* ",
        )
    return [
        *lines,
        "",
        *paragraph(
            f"Machine: {first['machine']}, {first['threads']} thread, Python {first['python']},",
            f"torch {first['torch']}. {len(rows)} runs.",
        ),
    ]


def parts(rows: Rows) -> dict[str, str]:
    """The tables by the names of their files."""
    compared = [line for strategy in STRATEGIES for line in near(rows, strategy)]
    found = {"cost": cost(rows), "near": compared, "about": about(rows)}
    return {name: "\n".join([*lines, ""]) for name, lines in found.items()}


def kept() -> Rows:
    """The rows as they are kept."""
    return [json.loads(line) for line in (KEPT / "runs.jsonl").read_text().splitlines()]


def main() -> None:
    """Run what is missing and write the tables."""
    if "page" not in sys.argv[1:]:
        own = ["benchmarks.decide_on", "--out", str(KEPT / "runs.jsonl")]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        command = [sys.executable, "-W", "ignore", "-m", *own]
        subprocess.run(command, check=True, cwd=HERE.parent, env=environment)
    for name, text in parts(kept()).items():
        (KEPT / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    main()

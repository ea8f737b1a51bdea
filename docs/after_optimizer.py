"""The figures of the page "After the optimizer".

`python docs/after_optimizer.py` makes the runs that are not there yet (some hours on one core; it
goes on where it was ended), the cost, and renews what is in docs/after_optimizer/. With `page` it
only writes the tables again.
"""

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE / "after_optimizer"
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from prose import paragraph  # noqa: E402
from speed import table  # noqa: E402

Rows = list[dict]


def mean(found: list[float]) -> float:
    """The mean of numbers, which are there."""
    return statistics.fmean(found)


def where(rows: Rows) -> str:
    """Where figures come from."""
    first = rows[0]
    machine = f"{first['machine']}, {first['threads']} thread"
    return f"{machine}, Python {first['python']}, torch {first['torch']}"


def shares(rows: Rows) -> list[str]:
    """The share of steps that raise an objective, as the optimizer made them and corrected."""
    found: dict = defaultdict(list)
    for row in rows:
        cell = row["cell"]
        if cell["kind"] == "guard":
            found[cell["task"], cell["strategy"], cell["optimizer"], cell["guard"]].append(row)
    alone: dict = defaultdict(list)
    losses: dict = defaultdict(dict)
    for row in rows:
        if row["cell"]["kind"] == "alone":
            alone[row["cell"]["task"], row["cell"]["optimizer"]].append(row)
            losses[row["cell"]["task"]][row["cell"]["only"]] = True
    lines: list[str] = []
    optimizers = list(dict.fromkeys(key[2] for key in found))
    for task in dict.fromkeys(key[0] for key in found):
        cells = []
        for strategy in dict.fromkeys(key[1] for key in found if key[0] == task):
            own = [strategy]
            for optimizer in optimizers:
                pair = [found.get((task, strategy, optimizer, g)) for g in ("report", "correct")]
                own.append(
                    " → ".join(
                        "" if r is None else f"{100 * mean([x['risen'] for x in r]):.1f}"
                        for r in pair
                    )
                )
            cells.append(own)
        control = [f"each loss alone: {', '.join(losses[task])}"]
        for optimizer in optimizers:
            own_rows = alone.get((task, optimizer), [])
            by_loss: dict = defaultdict(list)
            for row in own_rows:
                by_loss[row["cell"]["only"]].append(row["risen"])
            control.append(", ".join(f"{100 * mean(r):.1f}" for r in by_loss.values()))
        seeds = sorted(
            {x["cell"]["seed"] for r in found.values() for x in r if x["cell"]["task"] == task}
        )
        title = (
            f"{task}: steps in % that raise an objective on their own batch, as they are → "
            f"corrected (300 steps, seeds {', '.join(map(str, seeds))})"
        )
        lines += table(title, ["", *optimizers], [*cells, control])
    corrected = [x for r in found.values() for x in r if x["corrected"]]
    parts = [x["part"] for x in corrected]
    count = sum(x["corrected"] for x in corrected)
    held, short = (sum(x[key] for x in corrected) for key in ("held", "short"))
    left = [x["risen"] for key, r in found.items() if key[3] == "correct" for x in r]
    if parts:
        lines += paragraph(
            f"In {len(left)} corrected runs the largest share left is {100 * max(left):.1f} %.",
            f"{count} group steps were corrected; the median of ‖u'‖/‖u‖ per run lies between",
            f"{min(parts):.3f} and {max(parts):.3f}; the middle one is",
            f"{statistics.median(parts):.3f}.",
            f"u' = 0 was the answer {held} times, and ‖u'‖ < 0.01 ‖u‖ {short} times.",
        )
    return [*lines, ""]


def metric(rows: Rows) -> list[str]:
    """The share of steps that raise an objective, solved in either metric."""
    found: dict = defaultdict(dict)
    for row in rows:
        cell = row["cell"]
        if cell["kind"] == "metric":
            key = cell["task"], cell["strategy"], cell["optimizer"]
            found[key].setdefault(cell["metric"], []).append(row)
    cells = []
    for key, by_metric in found.items():
        groups = {name for own in by_metric.values() for row in own for name in row["groups"]}
        for group in [*sorted(groups), *(["any"] if len(groups) > 1 else [])]:
            shares = []
            for name in ("euclidean", "optimizer"):
                own = by_metric.get(name, [])
                part = [r["risen"] if group == "any" else r["groups"][group] for r in own]
                shares.append(f"{100 * mean(part):.1f}" if part else "")
            cells.append([*key, group, *shares])
    if not cells:
        return []
    headings = ["task", "strategy", "optimizer", "group", "euclidean", "optimizer's"]
    title = (
        'steps in % that raise an objective on their own batch, by metric (guard="report", 300 '
        "steps, seed 0)"
    )
    return table(title, headings, cells)


def beyond(rows: Rows) -> list[str]:
    """The optimizer's, the corrected and the control step on an independent batch."""
    found: dict = defaultdict(list)
    for row in rows:
        if row["cell"]["kind"] == "beyond":
            for name, own in row["objectives"].items():
                cell = row["cell"]
                found[cell["task"], cell["strategy"], cell["optimizer"], name].append(own)
    cells, wins, clear = [], [0, 0], [[0, 0], [0, 0]]
    for key, own in found.items():
        columns = {
            (what, kind): [x for run in own for x in run[what][kind]]
            for what in ("first order", "loss")
            for kind in ("optimizer", "corrected", "control")
        }
        steps = len(columns["loss", "optimizer"])
        means = [
            f"{1e3 * mean(columns[what, kind]):+.2f}"
            for what, kind in (
                ("first order", "optimizer"),
                ("first order", "corrected"),
                ("loss", "optimizer"),
                ("loss", "corrected"),
            )
        ]
        gains = []
        for i, other in enumerate(("optimizer", "control")):
            pairs = zip(columns["loss", "corrected"], columns["loss", other], strict=True)
            differences = [kept - plain for kept, plain in pairs]
            center = mean(differences)
            error = 2 * statistics.stdev(differences) / steps**0.5 if steps > 1 else 0.0
            gains.append(f"{1e3 * center:+.2f} ± {1e3 * error:.2f}")
            wins[i] += center < 0
            clear[i][0] += center < -error
            clear[i][1] += center > error
        cells.append([*key, str(steps), *means, *gains])
    if not cells:
        return []
    headings = [
        "task",
        "strategy",
        "optimizer",
        "objective",
        "steps",
        "⟨g, u⟩",
        "⟨g, u'⟩",
        "ΔL",
        "ΔL'",
        "ΔL' − ΔL",
        "ΔL' − ΔL of the control",
    ]
    title = "corrected steps on an independent batch of 32, in thousandths (± two standard errors)"
    return [
        *table(title, headings, cells),
        *paragraph(
            f"The corrected step is better than the optimizer's in {wins[0]} of {len(cells)} rows,",
            f"by more than two standard errors in {clear[0][0]} (worse in {clear[0][1]}).",
            f"It is better than the control in {wins[1]}, by more than two standard errors in",
            f"{clear[1][0]} (worse in {clear[1][1]}).",
            "Steps of one run are not independent, which the standard errors do not know.",
        ),
    ]


def trainings(rows: Rows) -> list[str]:
    """Pairs of trainings."""
    found: dict = defaultdict(dict)
    rates: dict = {}
    for row in rows:
        cell = row["cell"]
        if cell["kind"] in ("train", "same"):
            guard = "same rate" if cell["kind"] == "same" else cell["guard"]
            figures = {**row["figures"], "worst": min(row["figures"].values())}
            found[cell["task"], cell["strategy"]].setdefault(guard, {})[cell["seed"]] = figures
            rates[cell["task"], cell["strategy"], guard] = row["lr"]
    cells = []
    for (task, strategy), by_guard in found.items():
        for other in ("correct", "same rate"):
            seeds = sorted(by_guard.get("report", {}).keys() & by_guard.get(other, {}).keys())
            if len(seeds) < 2:
                continue
            chosen = [f"{rates[task, strategy, guard]:g}" for guard in ("report", other)]
            for name in by_guard["report"][seeds[0]]:
                pairs = [(by_guard["report"][s][name], by_guard[other][s][name]) for s in seeds]
                differences = [kept - plain for plain, kept in pairs]
                spread = t_interval(differences)
                own = [f"{mean(list(column)):.1f}" for column in zip(*pairs, strict=True)]
                gain = f"{mean(differences):+.2f} ± {spread:.2f}"
                cells.append([task, strategy, name, ", ".join(chosen), str(len(seeds)), *own, gain])
    if not cells:
        return []
    headings = [
        "task",
        "strategy",
        "accuracy in %",
        "rates",
        "seeds",
        "report",
        "correct",
        "difference",
    ]
    title = "test accuracy after 300 steps of Adam, each at its tuned rate (95 % paired t interval)"
    return table(title, headings, cells)


def t_interval(differences: list[float]) -> float:
    """Half of the 95 % interval of their mean."""
    from scipy.stats import t

    count = len(differences)
    return float(t.ppf(0.975, count - 1) * statistics.stdev(differences) / count**0.5)


def cost(found: dict) -> list[str]:
    """Time and memory."""
    cells = []
    for row in found["figures"]:
        ms, mb = row["milliseconds"], row.get("megabytes")
        base = "backward, step"
        times = [f"{ms[k] / ms[base]:.2f}" for k in ("report", "correct", "all corrected")]
        size = row["megabytes of parameters"]
        copies = [
            f"{(mb[k] - mb[base]) / size:.1f}" if mb else "-"
            for k in ("report", "correct", "all corrected")
        ]
        cells.append(
            [row["model"], str(row["n"]), row["method"], f"{ms[base]:.0f}", *times, *copies]
        )
    headings = [
        "model",
        "n",
        "method",
        "ms",
        "report",
        "correct",
        "all corrected",
        "copies: report",
        "correct",
        "all corrected",
    ]
    turns = sorted({row.get("rounds", found["rounds"]) for row in found["figures"]})
    title = (
        "CPU time over that of backward and optimizer.step(), medians of "
        f"{' to '.join(map(str, turns))} turns, "
        "and memory beyond it in copies of the parameters; upgrad, Adam"
    )
    return table(title, headings, cells)


def main() -> None:
    """Run what is missing and write the tables."""
    KEPT.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    if "page" not in sys.argv[1:]:
        for command in (
            ["benchmarks.after_optimizer", "--out", str(KEPT)],
            ["benchmarks.optimizer_cost", "--out", str(KEPT / "cost.json")],
        ):
            own = [sys.executable, "-W", "ignore", "-m", *command]
            subprocess.run(own, check=True, cwd=HERE.parent, env=environment)
    rows = [json.loads(line) for path in sorted(KEPT.glob("*.jsonl")) for line in path.open()]
    parts = {"shares": shares, "metric": metric, "beyond": beyond, "trainings": trainings}
    for name, make in parts.items():
        (KEPT / f"{name}.txt").write_text("\n".join([*make(rows), ""]))
    measured = KEPT / "cost.json"
    lines = cost(json.loads(measured.read_text())) if measured.exists() else []
    lines += paragraph(f"Machine: {where(rows)}. {len(rows)} runs.") if rows else []
    (KEPT / "cost.txt").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()

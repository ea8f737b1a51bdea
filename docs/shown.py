"""What the examples of frameworks and of several processes print and draw, stored for the gallery.

`python docs/shown.py NAME` runs an example and renews shown/NAME.txt and shown/NAME.png;
`nox -s frameworks` does that for each framework in an environment of its own.
"""

import csv
import datetime
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
EXAMPLES = {  # name -> what python is called with, once or twice, and whose versions are said
    "lightning": ([("lightning_multitask.py", "--epochs", "1")], "lightning"),
    "transformers": ([("transformers_trainer.py", "--steps", "120")], "transformers"),
    "peft": ([("peft_forget_retain.py",)], "peft"),
    "data_parallel": (
        [(*RANKS, str(count), "data_parallel.py", "--epochs", "1") for count in (1, 2)],
        "torch",
    ),
}


def ran(call: tuple[str, ...], folder: Path) -> str:
    """The command, and what it prints."""
    done = subprocess.run(
        [sys.executable, *(str(HERE.parent / "examples" / x) if ".py" in x else x for x in call)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "140", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    said = [f"examples/{x}" if x.endswith(".py") else x for x in call]
    command = "torchrun " + " ".join(said[2:]) if call[0] == "-m" else "python " + " ".join(said)
    return f"$ {command}\n{done.stdout.strip()}\n"


def versions(package: str) -> str:
    """The day, and the versions of what ran."""
    import gradsurgery

    names = dict.fromkeys(("torch", package))
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    said = ", ".join([f"gradsurgery {gradsurgery.__version__}", *found])
    return f"{datetime.date.today()}: {said}, Python {sys.version.split()[0]}, on a CPU."


def lines_of(rows: list[dict[str, Any]], panels: Any, titles: dict[str, str]) -> None:
    """One panel per title: every column whose name begins with its prefix, over the steps."""
    for axes, (prefix, title) in zip(panels, titles.items(), strict=True):
        for name in rows[0]:
            kept = [(int(r["step"]), float(r[name])) for r in rows if r.get(name) not in ("", None)]
            if name.startswith(prefix) and kept:
                axes.plot(*zip(*kept, strict=True), label=name.removeprefix(prefix))
        axes.set(xlabel="step", title=title)
        axes.legend(fontsize="small")


def lightning(folder: Path, _: list[str], figure: Any) -> None:
    """The CSV file of its logger."""
    log = folder / "lightning_runs" / "logs" / "version_0" / "metrics.csv"
    rows = [row for row in csv.DictReader(log.read_text().splitlines()) if row["loss/left"]]
    titles = {"loss/": "losses", "weight/": "weights", "cosine/": "mean cosine"}
    lines_of(rows, figure.subplots(1, 3), titles)


def transformers(folder: Path, _: list[str], figure: Any) -> None:
    """Trainer's own log, in its last checkpoint."""
    states = (folder / "transformers_runs").glob("checkpoint-*/trainer_state.json")
    history = json.loads(max(states, key=lambda path: path.stat().st_mtime).read_text())
    rows = [entry for entry in history["log_history"] if "grad_norm" in entry]
    titles = {"loss/": "losses", "weight/": "weights", "cosine/": "mean cosine"}
    lines_of(rows, figure.subplots(1, 3), titles)


def peft(_: Path, texts: list[str], figure: Any) -> None:
    """Right answers, from the table it prints: a bar per seed."""
    rows = [line.split("│")[1:-1] for line in texts[0].splitlines() if line.startswith("│")]
    axes = figure.subplots()
    for k, (column, label) in enumerate({2: "to be forgotten", 4: "to be kept"}.items()):
        for place, row in enumerate(rows):
            values = [float(number) for number in re.findall(r"[\d.]+", row[column])]
            width = 0.4 / len(values)
            for seed, value in enumerate(values):
                at = place + 0.42 * k + seed * width
                axes.bar(at, value, width * 0.9, color=f"C{k}", label=label if not place else None)
                label = None
    axes.set(ylabel="right answers, % (a bar per seed)")
    axes.set_xticks([place + 0.3 for place in range(len(rows))], [row[0].strip() for row in rows])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def data_parallel(_: Path, texts: list[str], figure: Any) -> None:
    """Test accuracies of one rank and of two."""
    axes = figure.subplots()
    for k, text in enumerate(texts):
        found = dict(re.findall(r"(\w+) ([\d.]+) %", text))
        at = [place + 0.42 * k for place in range(len(found))]
        axes.bar(at, [float(value) for value in found.values()], 0.4, label=f"ranks: {k + 1}")
        axes.set_xticks([place + 0.21 for place in range(len(found))], list(found))
    axes.set(ylabel="test accuracy, %", ylim=(0, 100))
    axes.legend()


DRAWN: dict[str, Callable[[Path, list[str], Any], None]] = {
    "lightning": lightning,
    "transformers": transformers,
    "peft": peft,
    "data_parallel": data_parallel,
}


def main(name: str) -> None:
    """Run one example and store its text and its picture."""
    from matplotlib.figure import Figure

    calls, package = EXAMPLES[name]
    with tempfile.TemporaryDirectory() as folder:
        texts = [ran(call, Path(folder)) for call in calls]
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        DRAWN[name](Path(folder), texts, figure)
    (HERE / "shown" / f"{name}.txt").write_text("\n".join([*texts, versions(package), ""]))
    figure.savefig(HERE / "shown" / f"{name}.png", dpi=110)


if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        main(chosen)

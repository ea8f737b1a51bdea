"""Speed and memory as a page.

`python docs/speed.py` runs the benchmarks (half an hour on two cores) and renews docs/speed/*.json,
speed.png and speed.rst. With names of benchmarks (`python docs/speed.py memory`) only those are
run; with `page` none.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from prose import paragraph
from speed_conclusion import conclusion
from speed_per_example import per_example

HERE = Path(__file__).parent
KEPT = HERE / "speed"
BENCHMARKS = ("peers", "multimodal", "memory", "growth", "per_example")
Figures = dict[str, dict[str, Any]]


def ran(found: dict[str, Any]) -> str:
    """Where figures come from."""
    machine = f"{found['machine']}, {found['threads']} threads"
    return f"{machine}, Python {found['python']}, torch {found['torch']}, seed 0"


def table(title: str, headings: list[str], rows: list[list[str]]) -> list[str]:
    """A list-table."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in [headings, *rows]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return [*lines, ""]


def beside(found: dict[str, Any]) -> list[str]:
    """Time and memory of a step beside TorchJD, the floor and plain training."""
    times, peaks = [], []
    for row in found["figures"]:
        t, peak, best = row["milliseconds"], row["megabytes"], row["torchjd"]
        ratios = [t["ours"] / t[key] for key in (best, "floor", "n passes")]
        ratios += [
            t[key] / t["sum().backward()"] for key in ("sum", "sum, ignore", "uw", "uw, ignore")
        ]
        times.append(
            [row["model"], str(row["n"]), f"{t['ours']:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        )
        peaks.append(
            [
                row["model"],
                str(row["n"]),
                *(
                    f"{peak[key]:.0f}"
                    for key in ("ours, auto", "ours, memory=low", best, "sum().backward()")
                ),
            ]
        )
    headings = [
        "model",
        "n",
        "ms",
        "/ TorchJD",
        "/ floor",
        "/ n passes",
        "sum",
        "sum, ignore",
        "uw",
        "uw, ignore",
    ]
    return [
        *table(
            f"time of a step, median of up to {found['rounds']} (at least 3), ratios of medians",
            headings,
            times,
        ),
        *table(
            "peak memory of a step, MB",
            ["model", "n", "upgrad", 'upgrad, ``memory="low"``', "TorchJD", "``sum().backward()``"],
            peaks,
        ),
    ]


def on_gpu(found: dict[str, Any]) -> list[str]:
    """Time, memory and host syncs of a step on a GPU."""
    rows = []
    for row in found["steps"]:
        t, peak = row["milliseconds"], row["megabytes"]
        ratios = [t["upgrad"] / t[key] for key in (row["torchjd"], "floor", "n passes")]
        ratios += [t[f"upgrad, {how}"] / t["upgrad"] for how in ("gradients", "batched")]
        ratios += [t[key] / t["sum().backward()"] for key in ("sum", "sum, ignore")]
        cells = [f"{t['upgrad']:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        cells += [f"{peak[key]:.0f}" for key in ("upgrad", "sum().backward()")]
        rows.append([row["model"], row["precision"], str(row["n"]), *cells])
    headings = ["model", "precision", "n", "ms", "/ TorchJD", "/ floor", "/ n passes"]
    headings += [
        '``method="gradients"``',
        '``method="batched"``',
        "sum",
        "sum, ignore",
        "MB",
        "MB, plain",
    ]
    counts = ", ".join(f"``{name}`` {count}" for name, count in found["syncs"].items())
    tests = found["tests"]
    return [
        *("On a GPU", "--------", ""),
        *paragraph(
            f"{found['machine']}, Python {found['python']}, torch {found['torch']}, seed 0:",
            f"``python -m benchmarks.gpu`` (``nox -s gpu``) took {found['seconds']:.0f} s. Of the",
            f"tests marked ``gpu`` {tests['passed']} of {tests['tests']} passed. The two columns",
            "of methods are that method's time over that of ``auto``: below 1 it is faster.",
            "``auto`` counts operations as on a CPU, and here it is not the fastest where",
            "passes are short: for the transformer with n = 8 the batched pass takes 0.6 of its",
            "time.",
        ),
        "",
        *table(
            f"time of a step, median of up to {found['rounds']}, and ratios of medians",
            headings,
            rows,
        ),
        *paragraph(f"Host syncs of one step (MLP, n = 4): {counts}."),
        "",
    ]


def page(figures: Figures) -> str:
    """The page from the figures."""
    peers, multimodal, memory, growth, single = (figures[name] for name in BENCHMARKS)
    official = multimodal["milliseconds"]["official procedure"]
    shares = [
        f"``{name}`` {value / official:.2f}"
        for name, value in multimodal["milliseconds"].items()
        if name != "official procedure"
    ]
    fits = growth["exponents"]
    slopes = [
        [
            quantity,
            size,
            *(f"{fits[f'{unit}, {axis}, {name}']:.2f}" for name in ("auto", "gradients", "low")),
        ]
        for quantity, unit in (("time", "milliseconds"), ("peak memory", "megabytes"))
        for size, axis in (("n", "n"), ("d", "d"))
    ]
    sizes = {
        "n": f"n from {growth['n'][0]} to {growth['n'][-1]} at 4 layers",
        "d": f"d from {growth['d'][0] / 1e6:.1f} to {growth['d'][-1] / 1e6:.1f} million at n = 4",
    }
    peaks = [[name, f"{value:.0f}"] for name, value in memory["megabytes"].items()]
    columns = ["quantity", "over", "auto (taps)", 'method="gradients"', 'memory="low", gradients']
    lines = [
        *("Speed and memory", "================", ""),
        *conclusion(peers, figures["gpu"]),
        *paragraph(
            "Everything here is printed by ``python docs/speed.py`` (``nox -s speed`` installs",
            "what it needs), which runs ``python -m benchmarks.peers``, ``.multimodal``,",
            "``.memory``, ``.growth`` and ``.per_example``; figures are kept in",
            "``docs/speed/``. Times alternate in one process and are given as ratios of",
            "medians. Each peak of memory is that of",
            "a process of its own, by the same probe for all: the high-water mark of the",
            "process during one step. Timed is the way from the losses to ``.grad``; the",
            "forward pass is not. ``nox -s bench`` times solvers, strategies and steps one by one.",
        ),
        *("", "Beside TorchJD, the floor and plain training", "-" * 44, ""),
        *paragraph(
            f"{ran(peers)}. The strategy is ``upgrad``. TorchJD 0.18 is the fastest of its",
            "settings: vmap or one row at a time, with and without its Gramian option. The",
            "floor is one ``torch.autograd.grad`` per loss, one Gram matrix and one",
            "combination, written out.",
        ),
        "",
        *paragraph(
            "The last four columns are one-pass steps, ``sum`` and ``uw``, also with",
            '``nonfinite="ignore"``, beside ``sum(losses).backward()``. What is above 1 there is a',
            "fixed cost of about half a millisecond and one read of the gradients, which models",
            "that take a few milliseconds feel. The fixed cost is the walk through the graph",
            "that finds out which loss reaches what, the bookkeeping, and the Record.",
        ),
        "",
        *paragraph(
            "A combination of n gradients cannot cost less than the n passes where those are",
            "matrix products at the machine's peak, as in the transformer and the convolutions.",
            "It does where layers are tapped (the MLPs), and where losses share no parameter",
            "and take part in one pass (the two encoders).",
        ),
        "",
        *beside(peers),
        *("MMPareto", "--------", ""),
        *paragraph(
            f"{ran(multimodal)}. The two-encoder model, beside the official procedure: four",
            f"backward passes, gradients cloned, norms per tensor; {official:.1f} ms. As a share",
            f"of it a step of ours takes: {', '.join(shares)}.",
        ),
        *("", "Memory", "------", ""),
        *paragraph(
            f"{ran(memory)}. An MLP with {memory['parameters']:.0f} MB of parameters, batch",
            f"{memory['batch']}, {memory['n']} losses:",
        ),
        "",
        *table("peak memory of one step", ["step", "MB"], peaks),
        *("Growth", "------", ""),
        *paragraph(
            f"{ran(growth)}. An MLP {growth['width']} wide, batch {growth['batch']}; {sizes['n']},",
            f"{sizes['d']}. Fitted exponents:",
        ),
        "",
        *table("value ~ size to the power of", columns, slopes),
        ".. image:: speed.png",
        *paragraph(
            "Time and peak memory of a step over the number of objectives and of parameters,",
            "doubly logarithmic, with the fitted exponents.",
            first="   :alt: ",
        ),
        "",
        *per_example(single, ran(single), table),
        *on_gpu(figures["gpu"]),
    ]
    return "\n".join(lines)


def kept() -> Figures:
    """The figures as they are kept."""
    return {name: json.loads((KEPT / f"{name}.json").read_text()) for name in (*BENCHMARKS, "gpu")}


def main() -> None:
    """Run what is named and write the page."""
    KEPT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or BENCHMARKS:
        if name == "page":
            continue
        target = KEPT / (name if name == "growth" else f"{name}.json")
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", "--out", str(target)]
        subprocess.run(
            command, check=True, cwd=HERE.parent, env={**os.environ, "PYTHONPATH": str(HERE.parent)}
        )
        if name == "growth":
            shutil.move(KEPT / "growth.png", HERE / "speed.png")
    (HERE / "speed.rst").write_text(page(kept()))


if __name__ == "__main__":
    main()

"""What the page on speed opens with: its figures in three lines."""

import statistics
from collections.abc import Iterable
from typing import Any

from prose import paragraph


def _span(ratios: Iterable[float]) -> str:
    """From the least to the largest ratio, with the median."""
    found = sorted(ratios)
    return f"{found[0]:.2f} to {found[-1]:.2f} (median {statistics.median(found):.2f})"


def conclusion(peers: dict[str, Any], gpu: dict[str, Any]) -> list[str]:
    """Time beside TorchJD and beside plain passes, and memory, over all models of the tables."""
    cpu = [(row["milliseconds"], row["torchjd"]) for row in peers["figures"]]
    device = [(row["milliseconds"], row["torchjd"]) for row in gpu["steps"]]
    peaks = [(row["megabytes"], row["torchjd"]) for row in peers["figures"]]
    rival = _span(t["ours"] / t[best] for t, best in cpu)
    rival_gpu = _span(t["upgrad"] / t[best] for t, best in device)
    passes = _span(t["ours"] / t["n passes"] for t, _ in cpu)
    passes_gpu = _span(t["upgrad"] / t["n passes"] for t, _ in device)
    plain = _span(t["sum"] / t["sum().backward()"] for t, _ in cpu)
    memory = _span(m["ours, auto"] / m[best] for m, best in peaks)
    memory_plain = _span(m["ours, auto"] / m["sum().backward()"] for m, _ in peaks)
    lines = (
        (f"**Time, beside TorchJD:** {rival} on the CPU, {rival_gpu} on the GPU.",),
        (
            f"**Time, beside n backward passes:** {passes} on the CPU, {passes_gpu} on the GPU;",
            f"`sum` beside plain training {plain} on the CPU.",
        ),
        (
            f"**Memory, beside TorchJD:** {memory}; beside plain training {memory_plain}, as a",
            "gradient per objective is kept where layers are not tapped.",
        ),
    )
    return [
        *paragraph(
            "Every figure is a ratio: **below 1 is better**, less time or less memory than the",
            "other. Over all models of the tables below, with `upgrad`:",
        ),
        "",
        *(line for pieces in lines for line in paragraph(*pieces, first="* ")),
        "",
    ]

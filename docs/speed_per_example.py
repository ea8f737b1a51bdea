"""The section of the page on speed about per-example losses in one pass."""

from typing import Any

from prose import paragraph


def rows_of_single(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Beside TorchJD's Engine: ratios of time with both solvers and without one, and memory."""
    found = []
    for row in rows:
        t, peak = row["milliseconds"], row["megabytes"]
        ratios = [t[f"ours, {kind}"] / t[f"engine, {kind}"] for kind in ("upgrad", "mgda", "None")]
        beside = t["ours, mgda"] / t["plain"]
        found.append(
            [
                row["model"],
                str(row["n"]),
                *(f"{ratio:.2f}" for ratio in ratios),
                f"{beside:.2f}",
                f"{peak['ours']:.0f}",
                f"{peak['engine']:.0f}",
            ]
        )
    return found


def rows_of_mixtures(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Steps of n mixtures over a plain step."""
    return [
        [
            row["model"].partition(", batch")[0],
            str(row["batch"]),
            f"{row['milliseconds']['plain']:.1f}",
            *(
                f"{row['milliseconds'][n] / row['milliseconds']['plain']:.2f}"
                for n in ("3", "8", "64")
            ),
        ]
        for row in rows
    ]


def per_example(found: dict[str, Any], made: str, table: Any) -> list[str]:
    """The section.

    Args:
        found: what `python -m benchmarks.per_example` kept.
        made: where it was made.
        table: makes a list-table of a title, headings and rows.
    """
    figures = found["figures"]
    return [
        *("Per-example losses", "------------------", ""),
        *paragraph(
            f"{made}, one thread; medians of {found['turns']} turns of CPU time. Timed are whole",
            "steps, forward pass included. A first step has passes more, which check that",
            "examples are independent; they are not counted (:doc:`per_example`).",
        ),
        "",
        *paragraph(
            "Every example an objective: our time over that of TorchJD's Engine",
            "(``batch_dim=0``), with the solvers of ``upgrad`` and ``mgda`` and with none. Below 1",
            "we are faster. The next column is our step of ``mgda`` over a plain one.",
        ),
        "",
        *table(
            "every example an objective, ratios of medians, and peak memory of a step in MB",
            ["model", "n", "upgrad", "mgda", "no solver", "mgda / plain", "MB, ours", "MB, Engine"],
            rows_of_single(figures["single"]),
        ),
        *paragraph(
            "n mixtures of a batch: a step of ``mgda`` over a step of the plain sum. Weights are",
            "random, and a third of them zero. As many mixtures as examples, or more, are nearly",
            "dependent, so that all is summed in float64.",
        ),
        "",
        *table(
            "n mixtures, time over that of a plain step",
            ["model", "batch", "ms, plain", "n = 3", "n = 8", "n = 64"],
            rows_of_mixtures(figures["mixtures"]),
        ),
    ]

"""How often the direction conflicts with a gradient, on Gaussian rows, by strategy.

`python docs/violations.py` renews violations.rst.
"""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prose import paragraph

import gradsurgery as gs

SHAPES = ((2, 2), (3, 3), (3, 4), (4, 4), (5, 2), (5, 5), (5, 10), (10, 10))
STRATEGIES = (
    "sum", "aligned-mtl", "cagrad(c=0.4)", "cagrad(c=1.0)", "config", "graddrop", "gradvac",
    "imtl-g", "krum(byzantine=0)", "pcgrad", "trimmed-mean", "mgda", "nash-mtl", "upgrad",
)  # fmt: skip
DRAWS = 2000
CONFLICT = -1e-6  # a cosine below this


def directions(
    name: str, n: int, d: int, draws: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(J, cosines of the direction with each row) for standard normal rows."""
    strategy = gs.get_strategy(name)
    rng = np.random.default_rng([seed, n, d])
    for step in range(draws):
        rows = rng.normal(size=(n, d))
        extra: dict[str, Any] = {"state": gs.State()} if "state" in strategy.inputs else {}
        found = strategy(torch.from_numpy(rows), step=step, **extra).numpy()
        norms, length = np.linalg.norm(rows, axis=1), np.linalg.norm(found)
        # at a stationary point a direction that should be zero is rounding, and has no cosines
        yield rows, rows @ found / norms / length if length > 1e-6 * norms.min() else np.zeros(n)


def rate(
    name: str, n: int, d: int, draws: int, seed: int = 0, all_of_them: bool = False
) -> float | None:
    """The share of draws in which the direction conflicts with a gradient (or all), in percent.

    None where the strategy does not take n objectives.
    """
    try:
        conflicts = [
            (cosines < CONFLICT).all() if all_of_them else (cosines < CONFLICT).any()
            for _, cosines in directions(name, n, d, draws, seed)
        ]
    except gs.InputError:
        return None
    return 100 * float(np.mean(conflicts))


def page(draws: int = DRAWS) -> str:
    """The page, measured now."""
    shown = lambda value: "--" if value is None else f"{value:.1f}"  # noqa: E731
    head = [f"n={n}, d={d}" for n, d in SHAPES]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    machine = f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"
    title = "How often a direction conflicts with a gradient"
    lines = [
        *(title, "=" * len(title), ""),
        *paragraph(
            "What a strategy does not promise does happen. The table has the share of draws, in",
            "percent, in which the direction has a cosine below -1e-6 with some gradient. There",
            f"are {draws:,} draws of n standard normal rows in d dimensions, seed 0, a fresh state",
            "each, in float64. At stationary points a direction shorter than 1e-6 of the",
            f"shortest gradient counts as zero. ({versions}, {machine}.)",
        ),
        "",
        *paragraph(
            "High-dimensional random rows rarely conflict, and non-conflicting strategies are",
            "there to compare. Renewed by ``python docs/violations.py``.",
        ),
        *("", ".. list-table::", "   :header-rows: 1", "", "   * - strategy"),
        *(f"     - {h}" for h in head),
    ]
    for name in STRATEGIES:
        lines += [
            f"   * - ``{name}``",
            *(f"     - {shown(rate(name, n, d, draws))}" for n, d in SHAPES),
        ]
        print(name, file=sys.stderr)
    ascent = rate("imtl-g", 3, 4, 10 * draws, all_of_them=True)
    lines += [
        "",
        *paragraph(
            "``imtl-g`` at n = 3, d = 4 conflicts with *every* gradient, an ascent direction for",
            f"all, in {shown(ascent)} % of {10 * draws:,} draws: weights that sum to one may be",
            "those of the opposite direction. ``config`` promises nothing when the gradients are",
            "linearly dependent, as with more objectives than dimensions (n=5, d=2). In the",
            "first step ``gradvac`` is ``pcgrad``.",
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).parent / "violations.rst").write_text(page())

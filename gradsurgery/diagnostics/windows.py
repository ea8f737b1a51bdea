"""Series of a Recorder's samples by step, and windows along them."""

from collections.abc import Sequence

import numpy as np

from gradsurgery.diagnostics.samples import Sample
from gradsurgery.types import Array

Series = dict[str, tuple[Array, Array]]


def by_step(kept: Sequence[Sample], field: str) -> Series:
    """Objective -> steps and values of a field [n], at the steps where it is known."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for sample in kept:
        row = getattr(sample, field)
        if row is None:
            continue
        for name, value in zip(sample.objectives, row.tolist(), strict=True):
            if np.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(sample.step)
                values.append(value)
    return _arrays(found)


def cosines_by_step(kept: Sequence[Sample]) -> Series:
    """Pair -> steps and cosines, at the steps where they were measured."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for sample in kept:
        cosines = sample.cosines
        if cosines is None:
            continue
        for i, j in sample.pairs:
            pair = " and ".join(sorted((sample.objectives[i], sample.objectives[j])))
            if np.isfinite(cosines[i, j]):
                steps, values = found.setdefault(pair, ([], []))
                steps.append(sample.step)
                values.append(float(cosines[i, j]))
    return _arrays(found)


def windowed(steps: Array, values: Array, count: int) -> tuple[Array, list[Array]]:
    """At most `count` windows of as many values each: their mean steps, and the values in them."""
    pieces = min(count, max(1, len(steps) // 4))  # fewer than four make no quantile
    at = [piece.mean() for piece in np.array_split(steps, pieces)]
    return np.array(at), list(np.array_split(values, pieces))


def _arrays(found: dict[str, tuple[list[float], list[float]]]) -> Series:
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in found.items()}

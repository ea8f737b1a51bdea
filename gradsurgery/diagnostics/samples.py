"""A sample: what one step says of one group, in numbers that are kept."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradsurgery import Record
from gradsurgery.types import Array

STEPPED = ("change/", "risen", "corrected")  # the beginnings of what an optimizer's step adds


@dataclass(frozen=True)
class Sample:
    """One group at one step.

    Attributes:
        step: the step.
        group: the group's name.
        objectives: the n objectives that reached it.
        losses: [n].
        gram: G [n, n], or None where it was not measured.
        weights: [n], the mean over parameter tensors where the strategy has weights per tensor;
            None for a strategy that returns a direction itself.
        length: ‖d‖ = √(wᵀGw) of the direction; NaN where it does not follow from G and w.
        control: [n], the cosine of each objective's gradients on two batches; None where the loop
            gave no second batch.
        gap: the solver's relative optimality gap; NaN where no solver ran.
    """

    step: int
    group: str
    objectives: tuple[str, ...]
    losses: Array
    gram: Array | None = None
    weights: Array | None = None
    length: float = float("nan")
    control: Array | None = None
    gap: float = float("nan")

    @property
    def norms(self) -> Array | None:
        """‖gᵢ‖ [n], or None without a Gram matrix."""
        if self.gram is None:
            return None
        norms: Array = np.sqrt(np.diagonal(self.gram))
        return norms

    @property
    def cosines(self) -> Array | None:
        """cos(gᵢ, gⱼ) [n, n], 0 for a zero gradient; None without a Gram matrix."""
        if self.gram is None or self.norms is None:
            return None
        safe = np.where(self.norms > 0, self.norms, 1.0)
        cosines: Array = self.gram / safe / safe[:, None]
        return cosines

    @property
    def of_pairs(self) -> Array | None:
        """cos(gᵢ, gⱼ) of the pairs i < j, in the order of `pairs`; None without a Gram matrix."""
        if self.cosines is None:
            return None
        found: Array = self.cosines[np.triu_indices(len(self.objectives), 1)]
        return found

    @property
    def sum_length(self) -> float:
        """‖Σg‖, the length of the plain sum; NaN without a Gram matrix."""
        return float("nan") if self.gram is None else math.sqrt(max(float(self.gram.sum()), 0.0))

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        """The indices (i, j), i < j, of the pairs of objectives."""
        n = len(self.objectives)
        return ((i, j) for i in range(n) for j in range(i + 1, n))


def length_of(gram: Array | None, weights: Array | None) -> float:
    """‖Σ wᵢgᵢ‖ by G and weights [n]; NaN where they are not known."""
    if gram is None or weights is None or weights.ndim != 1:
        return float("nan")
    return math.sqrt(max(float(weights @ gram @ weights), 0.0))


def rows(sample: Sample) -> Iterator[dict[str, Any]]:
    """A row per pair of objectives, for tables.

    `ratio` is ‖g‖ of the first over that of the second. Of what is not known there is NaN.
    """
    nan = float("nan")
    n = len(sample.objectives)
    cosines, norms = sample.cosines, sample.norms
    cosines = np.full((n, n), nan) if cosines is None else cosines
    norms = np.full(n, nan) if norms is None else norms
    weights = np.full(n, nan) if sample.weights is None else sample.weights
    control = np.full(n, nan) if sample.control is None else sample.control
    for i, j in sample.pairs:
        yield {
            "step": sample.step,
            "group": sample.group,
            "first": sample.objectives[i],
            "second": sample.objectives[j],
            "cosine": float(cosines[i, j]),
            "ratio": float(norms[i] / norms[j]) if norms[j] > 0 else nan,
            "first_norm": float(norms[i]),
            "second_norm": float(norms[j]),
            "first_weight": float(weights[i]),
            "second_weight": float(weights[j]),
            "first_control": float(control[i]),
            "second_control": float(control[j]),
            "length": sample.length,
            "sum_length": sample.sum_length,
            "first_loss": float(sample.losses[i]),
            "second_loss": float(sample.losses[j]),
        }


def scalars(sample: Sample) -> dict[str, float]:
    """Tag -> number, for loggers; only of what is known. Names are those of `Record.scalars`."""
    found: dict[str, float] = {}
    group = sample.group
    if sample.of_pairs is not None and sample.norms is not None:
        for (i, j), cosine in zip(sample.pairs, sample.of_pairs.tolist(), strict=True):
            found[f"{group}/cosine/{sample.objectives[i]}, {sample.objectives[j]}"] = cosine
        if len(sample.of_pairs):
            found[f"{group}/conflicts"] = float((sample.of_pairs < 0).sum())
            found[f"{group}/mean_cosine"] = float(sample.of_pairs.mean())
        for name, norm in zip(sample.objectives, sample.norms.tolist(), strict=True):
            found[f"{group}/norm/{name}"] = norm
        found[f"{group}/sum_length"] = sample.sum_length
    for kind, number in (("length", sample.length), ("gap", sample.gap)):
        if np.isfinite(number):
            found[f"{group}/{kind}"] = number
    for kind, values in (("weight", sample.weights), ("control", sample.control)):
        if values is not None:
            for name, value in zip(sample.objectives, values.tolist(), strict=True):
                found[f"{group}/{kind}/{name}"] = value
    return found


def stepped(record: Record) -> dict[str, float]:
    """Tag -> number of what the optimizer's step did, under the names of `Record.scalars`."""
    starts = ("change/", *(f"{name}/{kind}" for name in record for kind in STEPPED))
    return {tag: value for tag, value in record.scalars().items() if tag.startswith(starts)}

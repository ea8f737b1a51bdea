"""How often something is violated over many draws, and the smallest gradients where it is."""

import contextlib
import os
import traceback
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gradsurgery.contract import Strategy
from gradsurgery.testing.answers import UnusableAnswer
from gradsurgery.testing.failing import Violation, no_answer, safely, smallest
from gradsurgery.testing.findings import Counterexample, Finding
from gradsurgery.testing.report import given
from gradsurgery.testing.runner import SKIP, run
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

LEAST_DRAWS = 10  # of several objectives, before it is said up to how many something holds
LINES = 12  # of a traceback
LIBRARIES = Path(np.__file__).parents[1]  # where numpy, torch and others are
ASKED = (("plain_call.py", "_asked"), ("definition.py", "solve"))  # who calls the function


def tally(
    name: str,
    strategy: Strategy,
    drawn: Iterable[Sample],
    violation: Violation,
    *,
    claimed: bool,
    budget: int,
    least: int = 1,
    answers: bool = True,
    in_distribution: bool = False,
) -> Finding:
    """Count on which draws something is violated, and make the first of them small.

    Args:
        name: of what is counted.
        strategy: what is asked.
        drawn: the draws, in the order of their size.
        violation: what is wrong with a draw; None where nothing is, `SKIP` where it cannot tell.
        claimed: whether it is promised.
        budget: how many smaller Jacobians to try at most.
        least: the least number of objectives of a smaller one.
        answers: only draws with an answer count.
        in_distribution: whether one draw is hundreds of random calls.
    """
    sizes: list[int] = []
    failing: list[Sample] = []
    for sample in drawn:
        said = safely(violation, sample)
        if said is SKIP or (answers and no_answer(said)):
            continue
        sizes.append(sample.count)
        if said:
            failing.append(sample)
    up_to = failing[0].count - 1 if failing else max(sizes, default=0)
    if sum(1 < n <= up_to for n in sizes) < LEAST_DRAWS:
        up_to = 0
    example = None
    if failing:
        small = smallest(violation, failing[0], budget, least)
        example = _shown(strategy, small, violation, str(failing[0]))
    return Finding(
        name, claimed, len(sizes), len(failing), up_to, example, in_distribution=in_distribution
    )


def _shown(strategy: Strategy, sample: Sample, violation: Violation, kind: str) -> Counterexample:
    says = safely(violation, sample) or "it did not happen again on the same gradients"
    weights: Array | None = None
    vector: Array | None = None
    with contextlib.suppress(Exception):
        found = run(strategy, sample)
        weights, vector = found.weights, found.vector
    return Counterexample(
        says,
        sample.jacobian,
        np.asarray(sample.gram),
        kind,
        weights,
        vector,
        given(strategy, sample).strip(),
        tuple(_lines(violation, sample)),
    )


def _lines(violation: Violation, sample: Sample) -> list[str]:
    """The lines of the function where it raises on this sample, and those alone."""
    try:
        violation(sample)
    except UnusableAnswer:
        return []
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
    else:
        return []
    places = [(Path(frame.filename).name, frame.name) for frame in frames]
    start = next((places.index(place) + 1 for place in ASKED if place in places), 0)
    inner = frames[start:]
    own = [frame for frame in inner if not Path(frame.filename).is_relative_to(LIBRARIES)]
    lines: list[str] = []
    for frame in own or inner:
        path = frame.filename
        with contextlib.suppress(ValueError):  # another drive
            path = min(path, os.path.relpath(path), key=len)
        lines.append(f"{path}, line {frame.lineno}, in {frame.name}: {frame.line}")
    return lines[-LINES:]

"""What the message of a failed check shows: the Jacobian, the other inputs, the direction."""

from typing import Any

import numpy as np

from gradsurgery.contract import Strategy
from gradsurgery.testing.context import inputs_of
from gradsurgery.testing.runner import run
from gradsurgery.testing.sample import Sample


def splits(sample: Sample) -> str:
    """The parameter tensors, where there are several."""
    return (
        f", in parameter tensors of {', '.join(map(str, sample.splits))} columns"
        if len(sample.splits) > 1
        else ""
    )


def matrix(sample: Sample) -> str:
    """J, row by row, to the last bit."""
    rows = [", ".join(repr(x) for x in row) for row in sample.jacobian.tolist()]
    return "\n".join(
        f"    {'[' if i == 0 else ' '}[{row}]{']' if i == len(rows) - 1 else ','}"
        for i, row in enumerate(rows)
    )


def returned(strategy: Strategy, sample: Sample) -> str:
    """What the strategy makes of it."""
    try:
        with np.errstate(all="ignore"):
            direction = run(strategy, sample)
    except Exception:
        return ""
    lines = "" if direction.weights is None else f"  weights {_numbers(direction.weights)}\n"
    product = sample.jacobian @ direction.vector
    return f"{lines}  d = {_numbers(direction.vector)}\n  Jd = {_numbers(product)}\n"


def given(strategy: Strategy, sample: Sample) -> str:
    """What came with the gradients, where it matters."""
    if sample.draw == 0:
        return ""
    found = {
        name: value
        for name, value in inputs_of(sample, strategy).items()
        if name in strategy.inputs and name != "splits"
    }
    shown = {
        name: _numbers(value) if isinstance(value, np.ndarray) else repr(value)
        for name, value in found.items()
    }
    return (
        "  given " + ", ".join(f"{name} = {value}" for name, value in shown.items()) + "\n"
        if shown
        else ""
    )


def _numbers(array: Any) -> str:
    return str(
        np.array2string(
            array, precision=6, separator=", ", max_line_width=10_000, threshold=64
        ).replace("\n", "")
    )

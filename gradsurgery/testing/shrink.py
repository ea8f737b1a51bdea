"""Make a failing Jacobian small: fewer objectives, fewer coordinates, plainer numbers."""

from collections.abc import Callable, Iterator

import numpy as np

from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array


def shrink(sample: Sample, fails: Callable[[Sample], bool], budget: int = 400) -> Sample:
    """The smallest Jacobian found that still fails, by greedy steps.

    Args:
        sample: one that fails.
        fails: whether a sample fails.
        budget: how many candidates to try at most.
    """
    best = sample
    tried = 0
    progress = True
    while progress and tried < budget:
        progress = False
        for candidate in _candidates(best):
            if tried >= budget:
                break
            tried += 1
            if _size(candidate) < _size(best) and fails(candidate):
                best, progress = candidate, True
                break
    return best


def _size(sample: Sample) -> tuple[int, int, int, bool, int, int]:
    rows = sample.jacobian
    return (
        sample.count,
        rows.shape[1],
        len(sample.splits),
        sample.draw != 0,
        sum(map(_digits, rows.ravel().tolist())),
        int((rows < 0).sum()),
    )


def _digits(number: float) -> int:
    """The length of a number as written, zero and one the shortest."""
    if number in (0, 1, -1):
        return abs(int(number))
    return len(f"{abs(number):.17g}".strip("0").replace(".", ""))


def _candidates(sample: Sample) -> Iterator[Sample]:
    rows, n = sample.jacobian, sample.count
    d = rows.shape[1]

    def made(new: Array, splits: tuple[int, ...] | None = None) -> Sample:
        return Sample.of(new, splits, sample.kind, sample.draw)

    if sample.draw:  # plain names, losses and the like
        yield Sample.of(rows, sample.splits, sample.kind)
    if n > 1:
        for i in range(n):
            yield made(np.delete(rows, i, 0), sample.splits)
    if len(sample.splits) > 1:
        yield made(rows)
    if len(sample.splits) == 1:
        if d > 1:
            for j in range(d):
                yield made(np.delete(rows, j, 1))
        if d > n:  # the same Gram matrix in n coordinates
            yield made(np.linalg.qr(rows.T)[1].T)
    scale = float(np.abs(rows).max())
    if scale not in (0.0, 1.0):
        yield made(rows / scale, sample.splits)
        yield made(rows / 2.0 ** np.floor(np.log2(scale)), sample.splits)
    largest = np.abs(rows).max(1, keepdims=True)
    safe = np.where(largest > 0, largest, 1.0)
    yield made(rows / safe, sample.splits)
    for digits in (1, 2, 3):
        yield made(_rounded(rows, digits), sample.splits)
        for i in range(n):
            yield made(
                np.where((np.arange(n) == i)[:, None], _rounded(rows, digits), rows), sample.splits
            )
    for i in range(n):
        for j in range(d):
            for value in (0.0, np.sign(rows[i, j]), *(_rounded(rows[i, j], k) for k in (1, 2, 3))):
                changed = rows.copy()
                changed[i, j] = value
                yield made(changed, sample.splits)


def _rounded(values: Array, digits: int) -> Array:
    """To so many significant digits."""
    powers = 10.0 ** np.floor(np.log10(np.where(values == 0, 1.0, np.abs(values))))
    # one division by a whole power of ten, so that 0.3 stays 0.3
    factor = 10.0 ** (digits - 1)
    found: Array = np.vectorize(float)(
        np.char.mod("%.12g", np.round(values / powers * factor) / factor * powers)
    )
    return found

"""The min-norm point of the gradients with each weight between two bounds."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsurgery.errors import InputError
from gradsurgery.solvers.min_norm import TOLERANCE, min_norm
from gradsurgery.solvers.scaling import as_gram, split
from gradsurgery.solvers.solution import Solution
from gradsurgery.types import Array

EXACT = 1e-14  # a gap below this is rounding
ROUND = 1e-9  # of the bounds' sums, which may miss one by rounding


def boxed_min_norm(gram: Any, lower: Any, upper: Any) -> Solution:
    """The min-norm point of n gradients whose weights lie between given bounds.

    w = argmin wᵀGw s.t. a <= w <= b, Σw = 1, by a primal active set on the cosines, with the norms
    apart. Where the min-norm point of all the simplex keeps the bounds it is that.

    Args:
        gram: G = JJᵀ [n, n].
        lower: a >= 0 [n], with Σa <= 1.
        upper: b >= a [n], with Σb >= 1.

    Returns:
        `Solution` with value w [n], objective wᵀGw, and gap max over v of (w − v)ᵀGw /
        (Σ vⱼnⱼ Σ wⱼnⱼ), v any weights within the bounds, which is zero at the optimum.

    Raises:
        InputError: when the Gram matrix or the bounds cannot be used.
        NonFiniteError: when the Gram matrix is not finite.

    Example:
        >>> from gradsurgery.solvers import boxed_min_norm
        >>> boxed_min_norm([[1.0, 0.0], [0.0, 3.0]], [0.0, 0.4], [1.0, 1.0]).value.tolist()
        [0.6, 0.4]
    """
    gram = as_gram(gram)
    cosines, norms = split(gram)
    low, high = _bounds(lower, upper, len(norms))
    free = min_norm(gram)
    if (free.value >= low).all() and (free.value <= high).all():
        return free
    zero = norms == 0
    lengths = np.where(zero, norms[~zero].min(initial=norms.max() or 1.0), norms)
    lengths /= norms.max() or 1.0
    cosines[zero, zero] = 0.0
    value, iterations = _active_set(cosines, lengths, low, high)
    value = np.minimum(np.maximum(value, low), high)
    gap = _gap(cosines, lengths, norms > 0, value, low, high)
    return Solution(value, gap, iterations, gap <= TOLERANCE, float(value @ gram @ value))


def _bounds(lower: Any, upper: Any, n: int) -> tuple[Array, Array]:
    low, high = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
    shapes = low.shape == high.shape == (n,)
    if (
        not shapes
        or not (low >= 0).all()
        or not (low <= high).all()
        or not low.sum() <= 1 + ROUND
        or not high.sum() >= 1 - ROUND
    ):
        raise InputError(
            f"lower and upper: expected {n} numbers each, 0 <= lower <= upper, between whose sums "
            f"lies 1; got {low.tolist()} and {high.tolist()}."
        )
    return low, high


def _inside(low: Array, high: Array) -> Array:
    """Weights between the bounds, as far up from the lower ones for each."""
    room = high - low
    share = (1 - low.sum()) / room.sum() if room.any() else 0.0
    return np.asarray(low + min(max(share, 0.0), 1.0) * room)


def _active_set(cosines: Array, lengths: Array, low: Array, high: Array) -> tuple[Array, int]:
    """The weights, and how many steps it took.

    Every step goes to the minimum over the weights that are between their bounds, or up to the
    first bound. Then the two fixed weights that gain most by an exchange are let go.
    """
    n = len(lengths)
    scale = lengths.min() / lengths
    value = _inside(low, high)
    fixed = (value <= low) | (value >= high)
    for iteration in range(1, 40 * n + 40):
        on = np.flatnonzero(~fixed)
        slope = (cosines @ (value * lengths))[on]
        step = _step(cosines[np.ix_(on, on)], scale[on], slope) / lengths[on]
        limit = np.where(step > 0, high[on], low[on]) - value[on]
        ratio = np.divide(limit, step, out=np.full(len(on), math.inf), where=step != 0)
        first = float(ratio.min(initial=math.inf))
        value[on] += min(1.0, max(first, 0.0)) * step
        if len(on):  # what rounding did to the sum goes where there is most room
            room = np.minimum(value[on] - low[on], high[on] - value[on])
            value[on[int(np.argmax(room))]] += 1 - float(value.sum())
        if first < 1:
            stopped = on[ratio <= first]
            value[stopped] = np.where(step[ratio <= first] > 0, high[stopped], low[stopped])
            fixed[stopped] = True
            continue
        slope = (cosines @ (value * lengths)) * lengths
        rise, fall = np.flatnonzero(value < high), np.flatnonzero(value > low)
        if not len(rise) or not len(fall):
            return value, iteration
        gains, up, down = _exchanges(slope, lengths, rise, fall)
        if gains <= EXACT * float(value @ lengths) or (~fixed[[up, down]]).all():
            return value, iteration
        pair = [up, down]
        # exchanged at once: a step from here may be stopped before it begins, and this one is not
        moved = lengths[pair] * [1.0, -1.0]
        curvature = float(moved @ cosines[np.ix_(pair, pair)] @ moved)
        most = min(float(high[up] - value[up]), float(value[down] - low[down]))
        wanted = float(slope[down] - slope[up])
        change = most if wanted >= most * curvature else wanted / curvature
        value[up] += change
        value[down] -= change
        fixed[pair] = (value[pair] <= low[pair]) | (value[pair] >= high[pair])
    return value, 40 * n + 40


def _exchanges(
    slope: Array, lengths: Array, rise: NDArray[np.intp], fall: NDArray[np.intp]
) -> tuple[float, int, int]:
    """The largest gain by moving weight to one objective from another, in units of their norms."""
    gains = (slope[fall] - slope[rise, None]) / (lengths[fall] + lengths[rise, None])
    place = np.unravel_index(int(np.argmax(gains)), gains.shape)
    return float(gains[place]), int(rise[place[0]]), int(fall[place[1]])


def _step(cosines: Array, scale: Array, slope: Array) -> Array:
    """From the present point to the minimum with the same sum: x = Zy with sᵀZ = 0."""
    k = len(scale)
    if k < 2:
        return np.zeros(k)
    basis = np.linalg.qr(scale[:, None], mode="complete")[0][:, 1:]
    reduced = np.linalg.lstsq(basis.T @ cosines @ basis, -(basis.T @ slope), rcond=None)[0]
    return np.asarray(basis @ reduced)


def _gap(
    cosines: Array, lengths: Array, live: NDArray[np.bool_], value: Array, low: Array, high: Array
) -> float:
    """(w − v)ᵀGw for the best v, which fills up the weights of least slope first."""
    slope = (cosines @ (value * lengths)) * lengths
    best, left = low.copy(), 1 - float(low.sum())
    for i in np.argsort(slope, kind="stable"):
        added = min(left, float(high[i] - low[i]))
        best[i] += added
        left -= added
    sizes = float(best[live] @ lengths[live]) * float(value[live] @ lengths[live])
    return max(0.0, float((value - best) @ slope)) / sizes if sizes > 0 else 0.0

"""Properties that say that a direction conflicts with no gradient, and what more it does."""

from functools import partial

import numpy as np
import torch

from gradsurgery.contract import Claim, State, Strategy
from gradsurgery.testing.context import BATCHES, inputs_of
from gradsurgery.testing.runner import SKIP, Direction, claims_of, is_random, known, run
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.tolerances import (
    HALF,
    LENGTH,
    RELATIVE,
    ROUNDING,
    SINGLE,
    gram_tolerance,
    nearly_stationary,
    tolerance_of,
)
from gradsurgery.types import Array


def non_conflicting(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """No ⟨gᵢ, d⟩ below −tol·nᵢ·Σⱼ|wⱼ|nⱼ."""
    for step in _steps(strategy):
        conflict = _conflict(strategy, sample, known(strategy, sample, step=step))
        if conflict is not None:
            return conflict
    return _conflict_in_low_precision(strategy, sample)


def strict(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """Non-conflicting, and ⟨gᵢ, d⟩ > 0 for all i.

    Wherever a common descent direction exists beyond rounding.
    """
    found = [_not_improved(strategy, sample, step) for step in _steps(strategy)]
    return next((violation for violation in found if violation is not None), None)


def _not_improved(strategy: Strategy, sample: Sample, step: int) -> str | None:
    direction = known(strategy, sample, step=step)
    conflict = _conflict(strategy, sample, direction)
    if conflict is not None:
        return conflict
    # At the min-norm point ⟨gᵢ, d⟩ >= ‖d‖², to be compared with nᵢ · Σ nⱼ; where norms do not
    # count, on rows of length one.
    norms = sample.norms
    if claims_of(strategy, "scale-invariant", sample):
        norms = np.where(norms > 0, 1.0, 0.0)
    reach, _ = sample.hull(np.where(norms > 0, sample.norms / np.where(norms > 0, norms, 1.0), 1.0))
    matters = reach > 10 * gram_tolerance(strategy, sample) * norms * norms.sum()
    if nearly_stationary(strategy, sample) or not matters.any():
        return SKIP
    relative = (sample.units @ direction.vector) / (direction.size or 1.0)
    flat = matters & (relative <= ROUNDING)
    if not flat.any():
        return None
    worst = int(np.flatnonzero(flat)[0])
    return (
        f"objective {worst} does not improve: ⟨gᵢ, d⟩ is {relative[worst]:.2g} of nᵢ·Σⱼ|wⱼ|nⱼ "
        "although some direction improves all"
    )


def projection(strategy: Strategy, sample: Sample, claim: Claim) -> str | None:
    """d is non-conflicting, no longer than the mean gradient, and the mean itself where that is."""
    direction = known(strategy, sample)
    conflict = _conflict(strategy, sample, direction)
    if conflict is not None:
        return conflict
    n = sample.count
    mean, size = sample.units.T @ sample.norms / n, float(sample.norms.mean())
    longest = (1 + RELATIVE) * float(np.linalg.norm(mean)) + LENGTH * size
    length = float(np.linalg.norm(direction.vector))
    if not length <= longest:
        return f"d is {length / (longest or 1.0):.3g} times longer than the mean gradient"
    agrees = bool((sample.units @ mean >= ROUNDING * size).all())
    error = float(np.linalg.norm(direction.vector - mean))
    if agrees and not error <= RELATIVE * size:
        return f"d is not the mean, which conflicts with no gradient: off by {error / size:.2g}"
    return None


def _steps(strategy: Strategy) -> range:
    """The random numbers that a promise about every single direction is checked with."""
    return range(4 if is_random(strategy) else 1)


def _conflict(strategy: Strategy, sample: Sample, direction: Direction) -> str | None:
    """The objective whose gradient conflicts most with d, where it does by more than rounding."""
    if _none_beyond(gram_tolerance(strategy, sample), sample, direction):
        return None
    return _conflict_beyond(tolerance_of(strategy, sample, direction), sample, direction)


def _none_beyond(tolerance: float, sample: Sample, direction: Direction) -> bool:
    """Whether the least size already says that there is no conflict."""
    return bool((sample.units @ direction.vector).min() >= -tolerance * direction.least)


def _conflict_beyond(tolerance: float, sample: Sample, direction: Direction) -> str | None:
    if direction.size == 0:
        return None
    relative = (sample.units @ direction.vector) / direction.size
    worst = int(np.argmin(relative))
    if relative[worst] >= -tolerance:
        return None
    return (
        f"objective {worst} conflicts with d: ⟨gᵢ, d⟩ is {relative[worst]:.3g} of nᵢ·Σⱼ|wⱼ|nⱼ "
        f"(allowed down to {-tolerance:.0e})"
    )


def _conflict_in_low_precision(strategy: Strategy, sample: Sample) -> str | None:
    """The same from gradients in float32, where float32 holds them; as rows in bfloat16 too."""
    least = sample.norms[sample.norms > 0].min(initial=1.0)
    if not 1e-18 < least <= sample.norms.max(initial=1.0) < 1e18:
        return None
    for dtype, tolerance in ((torch.float32, SINGLE), (torch.bfloat16, HALF)):
        if dtype is torch.bfloat16 and "rows" not in strategy.inputs:
            continue
        rows = torch.from_numpy(sample.jacobian).to(dtype)
        exact = Sample.of(rows.double().numpy(), sample.splits, sample.kind, sample.draw)
        vector = _single(strategy, rows, exact)
        length = float(np.linalg.norm(vector))
        usual = partial(_size, strategy, exact)
        direction = Direction(vector, length, None, usual)
        if _none_beyond(tolerance, exact, direction):
            continue
        conflict = _conflict_beyond(tolerance, exact, direction)
        if conflict is not None:
            shown = np.array2string(vector, precision=4)
            return f"with gradients in {str(dtype)[6:]} (d = {shown}), {conflict}"
    return None


def _size(strategy: Strategy, sample: Sample) -> float:
    return run(strategy, sample).size


def _single(strategy: Strategy, rows: torch.Tensor, exact: Sample) -> Array:
    inputs = inputs_of(exact, strategy)
    inputs.pop("eps", None)  # that of the rows' dtype
    if "state" in strategy.inputs:
        inputs["state"] = State()
    batches = rows.expand(BATCHES, *rows.shape) if "cross" in strategy.inputs else rows
    return np.asarray(strategy(batches, step=exact.draw, **inputs).double().numpy())

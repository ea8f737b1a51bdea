"""What rounding allows: how far a direction may be from what a claim says."""

from typing import Any

import numpy as np

from gradsurgery.contract import Strategy
from gradsurgery.testing.circumstances import circumstances, losses_of, stationary
from gradsurgery.testing.runner import Direction
from gradsurgery.testing.sample import Sample

TOLERANCE = 1e-10  # of non-conflict, relative to nᵢ · Σⱼ |wⱼ|nⱼ, for Gram matrices in float64
SINGLE = 1e-5  # the same for gradients in float32
HALF = 3e-2  # and for directions made of rows in bfloat16
ROUNDING = 1e-14  # below this, relative to the same, a number has no sign
RELATIVE = 1e-6  # agreement of directions where they are well determined
LENGTH = 1e-7  # of the mean norm: what a Gram matrix in float64 leaves undetermined of a length
STATIONARY = 1e-12  # ‖d‖²/(Σ wn)² at the min-norm point below which strategies may return zero


def gram_tolerance(strategy: Strategy, sample: Sample) -> float:
    """The tolerance of the accuracy that the strategy was told of as `eps`."""
    single = (
        "eps" in strategy.inputs and circumstances(sample.draw).eps is not None and sample.clear
    )
    return SINGLE if single else TOLERANCE


def tolerance_of(strategy: Strategy, sample: Sample, direction: Direction) -> float:
    """That of the Gram matrix; more for directions made of rows.

    Their size may be far below that of the terms that cancel in them.
    """
    least = gram_tolerance(strategy, sample)
    if direction.weights is not None or direction.size == 0:
        return least
    return max(least, ROUNDING * float(sample.norms.max()) / direction.size)


def nearly_stationary(strategy: Strategy, sample: Sample) -> bool:
    """Whether the gradients are so nearly stationary that the strategy may stop.

    Where it takes losses, the gradients divided by them count as well.
    """
    bound = stationary(sample, STATIONARY)
    if sample.conditioning <= bound:
        return True
    if "losses" not in strategy.inputs or not strategy.needs_gradients:
        return False
    return _distance_by_losses(sample, losses_of(sample)) <= bound


def allowed(sample: Sample, *amplification: float, losses: Any = None) -> float:
    """How far apart two directions may be that differ by rounding alone.

    The nearer to stationary, the further.
    """
    conditioning = sample.conditioning
    if losses is not None:
        conditioning = min(conditioning, _distance_by_losses(sample, losses))
    return max(amplification) * (RELATIVE + 1e-13 / max(conditioning, 1e-18))


def _distance_by_losses(sample: Sample, losses: Any) -> float:
    """`Sample.conditioning` of the gradients divided by their losses."""
    live = np.where(sample.norms > 0, sample.norms, 1.0)
    return min(sample.distance(losses), sample.distance(losses * live))

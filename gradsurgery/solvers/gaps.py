"""Optimality gaps: how far a point is from the optimum, for the solvers and their references."""

import numpy as np

from gradsurgery.types import Array


def hull_gap(cosines: Array, norms: Array, weights: Array) -> float:
    """The relative duality gap of a point of the simplex, for the min-norm problem; never negative.

    maxᵢ (wᵀGw − (Gw)ᵢ) / (nᵢ Σⱼ wⱼnⱼ), from the cosines [n, n], the norms [n] and the weights [n].
    """
    scaled = weights * norms
    image = cosines @ scaled
    return max(0.0, float(np.max((scaled @ image) / norms - image)) / float(scaled.sum()))


def cone_gap(cosines: Array, point: Array, multipliers: Array) -> float:
    """How far Uᵀ·point is from a projection onto the dual cone, relative to the size of its terms.

    The larger of infeasibility and failed complementarity, both from the cosines C = UUᵀ [n, n].
    """
    image = cosines @ point
    size = max(float(np.abs(point).sum()), float(np.abs(point - multipliers).sum())) or 1.0
    return max(0.0, -float(image.min()) / size, abs(float(multipliers @ image)) / size**2)

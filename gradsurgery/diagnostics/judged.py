"""From the moments of a group to its diagnosis."""

import math
from collections.abc import Iterator

import numpy as np

from gradsurgery.diagnostics.diagnosis import (
    Assumption,
    GroupDiagnosis,
    ObjectiveDiagnosis,
    PairDiagnosis,
)
from gradsurgery.diagnostics.jackknife import Interval, Samples, estimates, interval, ratio
from gradsurgery.diagnostics.moments import Moments
from gradsurgery.diagnostics.verdicts import TRY, Verdict, above, batches_needed, verdict
from gradsurgery.types import Array

# Initialisation gives √M on average: 1.37 to 1.57 for M = 2 and 2.34 to 2.65 for M = 6 over
# models and draws, which intervals over the batches of one model do not cover.
MADE = 1.15


def judge(
    moments: Moments,
    *,
    level: float,
    margin: float,
    joint: str | None = None,
    modalities: int | None = None,
) -> GroupDiagnosis:
    """The diagnosis of one group.

    Args:
        moments: of the group.
        level: of each interval.
        margin: cosines that are smaller in size count as orthogonal.
        joint: the joint objective, where there is one.
        modalities: M, where it is known.
    """
    samples = estimates(moments)
    known = [_known(samples.norms[:, i], level) for i in range(len(moments.objectives))]
    each = dict(_objectives(moments, samples, known, level))
    pairs = []
    names = moments.objectives
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            # A unimodal objective stands before the joint one, so that ratios are over the joint.
            a, b = (j, i) if names[i] == joint else (i, j)
            pairs.append(_pair(moments, samples, known, a, b, level, margin, joint, modalities))
    inner = samples.inner[0].copy()
    return GroupDiagnosis(
        moments.name, moments.objectives, moments.parameters, inner, each, tuple(pairs)
    )


def _known(norms: Array, level: float) -> bool:
    """Whether ‖ḡ‖² is above zero beyond noise: only then is a cosine or relative noise known."""
    return bool(interval(norms, level).low > 0)


def _objectives(
    moments: Moments, samples: Samples, known: list[bool], level: float
) -> Iterator[tuple[str, ObjectiveDiagnosis]]:
    ahead = np.diagonal(moments.next, axis1=1, axis2=2)
    for i, name in enumerate(moments.objectives):
        norms, covariance = samples.norms[:, i], samples.covariance[:, i]
        yield (
            name,
            ObjectiveDiagnosis(
                name,
                length=math.sqrt(samples.squares[0, i]),
                mean_length=ratio(_if(known[i], norms), np.ones_like(norms), level, 0.5),
                covariance=interval(covariance, level),
                noise=ratio(covariance, _if(known[i], norms), level),
                control=float((ahead[:, i] < 0).mean()),
            ),
        )


def _if(known: bool, values: Array) -> Array:
    return values if known else np.full_like(values, np.nan)


def _pair(
    moments: Moments,
    samples: Samples,
    known: list[bool],
    i: int,
    j: int,
    level: float,
    margin: float,
    joint: str | None,
    modalities: int | None,
) -> PairDiagnosis:
    names = moments.objectives
    inner = interval(samples.inner[:, i, j], level)
    first, second = samples.norms[:, i], samples.norms[:, j]
    both = known[i] and known[j] and bool((first > 0).all() and (second > 0).all())
    scale = np.sqrt(first * second) if both else np.full_like(first, np.nan)
    cosine = interval(samples.inner[:, i, j] / scale, level)
    rate = float((moments.grams[:, i, j] < 0).mean())
    one, other = _if(known[i], first), _if(known[j], second)
    covariance = ratio(samples.covariance[:, i], samples.covariance[:, j], level)
    noise = ratio(samples.covariance[:, i] * other, samples.covariance[:, j] * one, level)
    length = ratio(samples.squares[:, i], samples.squares[:, j], level, 0.5)
    zero = min(samples.squares[0, i], samples.squares[0, j]) == 0
    found: Verdict = "no gradient" if zero else verdict(inner, cosine, rate, margin)
    ahead = moments.next
    assumption = None
    if names[j] == joint:
        root = math.sqrt(modalities or 0)
        near = length.low <= MADE * root and root / MADE <= length.high
        inside = None if modalities is None else near
        assumption = Assumption(above(length), above(covariance), above(noise), inside)
    return PairDiagnosis(
        names[i],
        names[j],
        inner=inner,
        cosine=cosine,
        conflict=rate,
        control=(float((ahead[:, i, i] < 0).mean()), float((ahead[:, j, j] < 0).mean())),
        length_ratio=length,
        mean_ratio=ratio(one, other, level, 0.5),
        covariance_ratio=covariance,
        noise_ratio=noise,
        verdict=found,
        advice=_advice(found, cosine, margin, len(moments.grams)),
        assumption=assumption,
    )


def _advice(found: Verdict, cosine: Interval, margin: float, batches: int) -> str:
    needed = batches_needed(cosine, margin, batches) if found == "undecided" else None
    return TRY[found] + ("" if needed is None else f": about {needed} would tell")

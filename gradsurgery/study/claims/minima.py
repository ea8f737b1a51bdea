"""The claim of flatter minima: the largest Hessian eigenvalue at equal training loss."""

import math
from collections.abc import Mapping

from gradsurgery.compare.statistics import pair, t_interval
from gradsurgery.study.claims.claim import PARETO, Claim, made
from gradsurgery.study.evidence import SCALED, SUM, Evidence

USED = "the largest Hessian eigenvalue of the summed training loss, runs stopped at equal loss"
BySeed = Mapping[int, float]


def flatter(evidence: Evidence) -> Claim:
    """Whether mmpareto's minima are flatter than those of sum and scaled-sum at equal loss."""
    details, answers = [], []
    for part in evidence.declaration.parts:
        by_strategy: dict[str, dict[int, float]] = {}
        for line in evidence.other("flatness"):
            if line["part"] == part.name and line["eigenvalue"] > 0:
                by_strategy.setdefault(line["strategy"], {})[line["seed"]] = line["eigenvalue"]
        for strategy, own in by_strategy.items():
            for baseline in (SUM, SCALED):
                if strategy in (SUM, baseline) or baseline not in by_strategy:
                    continue
                said, verdict = ratio(own, by_strategy[baseline])
                details.append(f"{part.name}: {strategy} has {said} times that of {baseline}.")
                if strategy == PARETO:
                    answers.append(f"{verdict} than {baseline} on {part.name}")
    return made(
        "Are the minima that MMPareto reaches flatter, at equal training loss?",
        f"{PARETO}: {'; '.join(answers) or 'no run of it reached that loss'}.",
        details,
        USED,
        evidence.measuring("flatness"),
    )


def ratio(own: BySeed, other: BySeed) -> tuple[str, str]:
    """The geometric mean ratio with its paired 95 % t interval, and what it says.

    Example:
        >>> ratio({0: 2.0, 1: 4.0, 2: 2.2}, {0: 4.0, 1: 7.0, 2: 4.2})[1]
        'flatter'
    """
    logs = [{seed: math.log(x) for seed, x in side.items()} for side in (own, other)]
    pairs = pair(*logs)
    if pairs.n == 0:
        return f"an unknown number of ({pairs.said()})", "not known to be flatter"
    mean = math.exp(sum(pairs.differences) / pairs.n)
    if pairs.n < 2 or not pairs.varies:
        return f"{mean:.2f} ({pairs.said()}, no interval)", "not known to be flatter"
    low, high = (math.exp(float(end)) for end in t_interval(pairs.differences))
    verdict = "flatter" if high < 1 else "sharper" if low > 1 else "neither flatter nor sharper"
    return f"{mean:.2f} (95 % interval {low:.2f} to {high:.2f}, {pairs.said()})", verdict

"""All questions of the study, in the order in which they are answered."""

from gradsurgery.study.claims.advice import advice
from gradsurgery.study.claims.claim import PARETO, Claim
from gradsurgery.study.claims.gradients import assumption, conflict
from gradsurgery.study.claims.minima import flatter
from gradsurgery.study.claims.strategies import (
    beats,
    crossed,
    difficulty,
    encoders,
    guarded,
    multimodal,
    predicted,
)
from gradsurgery.study.evidence import SCALED, SUM, Evidence


def answered(evidence: Evidence) -> list[Claim]:
    """Every question with its answer; what has no rows was not run."""
    return [
        beats(evidence, PARETO, SUM),
        beats(evidence, PARETO, SCALED),
        multimodal(evidence),
        encoders(evidence),
        flatter(evidence),
        conflict(evidence),
        assumption(evidence),
        difficulty(evidence),
        crossed(evidence),
        guarded(evidence),
        *(predicted(evidence, one) for one in evidence.declaration.predictions),
        advice(evidence),
    ]

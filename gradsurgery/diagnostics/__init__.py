"""What the gradients of a model say: `diagnose` at frozen weights, `Recorder` over a run."""

from gradsurgery.diagnostics.diagnosing import diagnose
from gradsurgery.diagnostics.diagnosis import (
    Assumption,
    Diagnosis,
    GroupDiagnosis,
    ObjectiveDiagnosis,
    PairDiagnosis,
)
from gradsurgery.diagnostics.jackknife import Interval

__all__ = [
    "Assumption",
    "Diagnosis",
    "GroupDiagnosis",
    "Interval",
    "ObjectiveDiagnosis",
    "PairDiagnosis",
    "diagnose",
]

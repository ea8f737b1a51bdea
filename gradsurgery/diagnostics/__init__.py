"""What the gradients of a model say: `diagnose` at frozen weights, `Recorder` over a run.

`flatness` is about the loss itself: the largest eigenvalue of its Hessian.
"""

from gradsurgery.diagnostics.callbacks import lightning_callback
from gradsurgery.diagnostics.diagnosing import diagnose
from gradsurgery.diagnostics.diagnosis import (
    Assumption,
    Diagnosis,
    GroupDiagnosis,
    ObjectiveDiagnosis,
    PairDiagnosis,
)
from gradsurgery.diagnostics.distilled import distil
from gradsurgery.diagnostics.flatness import Flatness, flatness
from gradsurgery.diagnostics.jackknife import Interval
from gradsurgery.diagnostics.plots import plot
from gradsurgery.diagnostics.recorder import Recorder
from gradsurgery.diagnostics.samples import Sample
from gradsurgery.diagnostics.sinks import tensorboard, to_csv
from gradsurgery.diagnostics.tracking import mean_scalars, tracker

__all__ = [
    "Assumption",
    "Diagnosis",
    "Flatness",
    "GroupDiagnosis",
    "Interval",
    "ObjectiveDiagnosis",
    "PairDiagnosis",
    "Recorder",
    "Sample",
    "diagnose",
    "distil",
    "flatness",
    "lightning_callback",
    "mean_scalars",
    "plot",
    "tensorboard",
    "to_csv",
    "tracker",
]

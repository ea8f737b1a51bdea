"""The study: what was declared, its cells through `compare`, and what its rows say."""

from gradsurgery.study.declaration import Declaration, Measured, Part, Prediction
from gradsurgery.study.declared import DECLARATION
from gradsurgery.study.evidence import Evidence, read_evidence

__all__ = [
    "DECLARATION",
    "Declaration",
    "Evidence",
    "Measured",
    "Part",
    "Prediction",
    "read_evidence",
]

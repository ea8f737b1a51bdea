"""The questions of the study, each answered from its rows."""

from gradsurgery.study.claims.claim import NOT_RUN, Claim
from gradsurgery.study.claims.questions import answered

__all__ = ["NOT_RUN", "Claim", "answered"]

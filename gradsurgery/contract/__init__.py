"""What the author of a strategy imports."""

from gradsurgery.contract.about import About, Citation
from gradsurgery.contract.cited import citation
from gradsurgery.contract.claims import (
    Claim,
    equivariant_when_named,
    forwarded,
    homogeneous,
    when,
)
from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.helpers import (
    Optimizer,
    descend,
    losses_from_zero,
    modality_score,
    positive_losses,
    warn_of_underflow,
)
from gradsurgery.contract.options import (
    NON_NEGATIVE,
    POSITIVE,
    SHARE,
    ObjectiveName,
    PerObjective,
    Range,
)
from gradsurgery.contract.per_objective import by_objective
from gradsurgery.contract.registry import get_strategy, strategy, strategy_names
from gradsurgery.contract.state import State

__all__ = [
    "NON_NEGATIVE",
    "POSITIVE",
    "SHARE",
    "About",
    "Citation",
    "Claim",
    "ObjectiveName",
    "Optimizer",
    "PerObjective",
    "Range",
    "State",
    "Strategy",
    "by_objective",
    "citation",
    "descend",
    "equivariant_when_named",
    "forwarded",
    "get_strategy",
    "homogeneous",
    "losses_from_zero",
    "modality_score",
    "positive_losses",
    "strategy",
    "strategy_names",
    "warn_of_underflow",
    "when",
]

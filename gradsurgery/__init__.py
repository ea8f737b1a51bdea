"""Several losses, one step: gradient surgery for multi-task and multimodal training."""

from gradsurgery.contract.claims import Claim, homogeneous, when
from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.registry import get_strategy, strategy, strategy_names
from gradsurgery.contract.state import State
from gradsurgery.engine import Surgery, backward, inspect
from gradsurgery.errors import (
    ConformanceError,
    GradSurgeryError,
    InputError,
    MissingExtraError,
    NonFiniteError,
    OptimizerError,
    RankError,
    SolverError,
    StrategyError,
    UnknownNameError,
)
from gradsurgery.gradients.matrix import GradientMatrix, Objectives
from gradsurgery.record import GroupRecord, Record

__version__ = "0.1.0"

__all__ = [
    "Claim",
    "ConformanceError",
    "GradSurgeryError",
    "GradientMatrix",
    "GroupRecord",
    "InputError",
    "MissingExtraError",
    "NonFiniteError",
    "Objectives",
    "OptimizerError",
    "RankError",
    "Record",
    "SolverError",
    "State",
    "Strategy",
    "StrategyError",
    "Surgery",
    "UnknownNameError",
    "backward",
    "get_strategy",
    "homogeneous",
    "inspect",
    "strategy",
    "strategy_names",
    "when",
]

"""Several losses, one step: gradient surgery for multi-task and multimodal training."""

from typing import TYPE_CHECKING, Any

from gradsurgery.contract.claims import Claim, homogeneous, when
from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.registry import get_strategy, strategy, strategy_names
from gradsurgery.contract.state import State
from gradsurgery.engine import PerExample, Surgery, backward, inspect
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

if TYPE_CHECKING:
    from gradsurgery.diagnostics.diagnosing import diagnose

__version__ = "0.2.0"

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
    "PerExample",
    "RankError",
    "Record",
    "SolverError",
    "State",
    "Strategy",
    "StrategyError",
    "Surgery",
    "UnknownNameError",
    "backward",
    "diagnose",
    "get_strategy",
    "homogeneous",
    "inspect",
    "strategy",
    "strategy_names",
    "when",
]


def __getattr__(name: str) -> Any:
    """`diagnose`, imported when it is first asked for: training needs nothing of it."""
    if name == "diagnose":
        from gradsurgery.diagnostics.diagnosing import diagnose

        globals()[name] = diagnose
        return diagnose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

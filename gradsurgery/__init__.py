"""Several losses, one step: gradient surgery for multi-task and multimodal training."""

from gradsurgery.errors import GradSurgeryError, InputError, NonFiniteError, SolverError, StrategyError, UnknownNameError
from gradsurgery.record import GroupRecord, Record
from gradsurgery.registry import Claim, State, Strategy, get_strategy, homogeneous, strategy, strategy_names, when

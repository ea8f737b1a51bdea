"""From gradients to directions: per group a gradient matrix, a problem, and Jᵀw."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.absent import present, rows_of, spread
from gradsurgery.engine.checks import check_directions, may_overflow, total_values
from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.config import Config
from gradsurgery.engine.directions import of_chunks
from gradsurgery.engine.gathering import arrived, is_several, matrices_of
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.solving import Solving
from gradsurgery.engine.source import GradientSource
from gradsurgery.gradients.coordinates import as_parameters, narrowed
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.record import Record, group_record

Places = NDArray[np.intp] | None  # of the objectives that a problem is solved for; None: all


def from_gradients(
    config: Config,
    source: GradientSource,
    solving: Solving,
    communicator: SingleProcess,
) -> tuple[dict[str, Tensor], Record]:
    """The direction of each parameter; a strategy of None only inspects.

    Raises:
        NonFiniteError: for NaN or inf, naming the objective and the group.
        OutOfRangeError: the same under a GradScaler, and for a direction that overflows.
    """
    strategy, trace = config.strategy, source.trace
    solving.groups, solving.reach, rows, idle = arrived(source)
    use_up = source.graph is not None and rows is source.rows and not trace.features
    matrices = matrices_of(config, strategy, source, solving.groups, rows, use_up)
    check = config.check
    solving.values = total_values(source, solving.groups, matrices, communicator, check, strategy)
    places = _present(config, solving.groups, matrices)
    names = [
        group.objectives if kept is None else tuple(group.objectives[i] for i in kept)
        for group, kept in zip(solving.groups, places, strict=True)
    ]
    solving.begin(names)
    directions = dict(idle)
    doubtful: list[tuple[str, str, Tensor]] = []
    in_chunks: dict[str, tuple[Group, Outcome]] = {}
    for group, matrix, kept, solved in zip(solving.groups, matrices, places, names, strict=True):
        outcome, applied = _solved(solving, group, matrix, kept, solved)
        _add_record(solving, group, matrix, kept, solved, outcome, applied)
        if strategy is None:
            continue
        whole = outcome if kept is None else spread(outcome, kept, len(group.objectives))
        found = _directions(source, group, matrix, whole, use_up)
        if config.check and not group.unchecked and _in_doubt(source, group, matrix, whole, found):
            title = strategy.name if strategy is not None and applied else "sum"
            doubtful += [(title, group.name, d) for d in found.values()]
        directions |= found
        if source.grams:
            in_chunks |= {n: (group, whole) for n in group.parameters if n in source.grams}
    check_directions(doubtful)
    if in_chunks:
        directions |= of_chunks(config, source, in_chunks)
    named = None if strategy is None else strategy.name
    return directions, Record(named, solving.values, solving.records, solving.history.step)


def _present(
    config: Config, groups: Sequence[Group], matrices: Sequence[GradientMatrix]
) -> list[Places]:
    """Per group the objectives that its problem is solved for, by `zero="absent"`."""
    strategy = config.strategy
    if config.zero != "absent" or strategy is None or not strategy.needs_gradients:
        return [None] * len(groups)
    pairs = zip(groups, matrices, strict=True)
    return [present(matrix) if is_several(config, group) else None for group, matrix in pairs]


def _solved(
    solving: Solving,
    group: Group,
    matrix: GradientMatrix,
    kept: Places,
    names: tuple[str, ...],
) -> tuple[Outcome, bool]:
    config = solving.config
    several = is_several(config, group) and len(names) >= config.min_objectives
    part = matrix if kept is None else matrix.only(rows_of(kept, matrix))
    finite = matrix.finite and all(math.isfinite(solving.values[o]) for o in group.objectives)
    return solving.for_group(group, names, part, several, finite)


def _directions(
    source: GradientSource, group: Group, matrix: GradientMatrix, outcome: Outcome, use_up: bool
) -> dict[str, Tensor]:
    if outcome.weights is not None:
        found = matrix.combine(outcome.weights, use_up)
    else:
        assert outcome.direction is not None
        found = matrix.split(outcome.direction)
    if source.odd and (odd := source.odd & group.parameters.keys()):
        found = as_parameters(found, group.parameters, odd)
    return {n: d for n, d in zip(group.parameters, found, strict=True) if d is not None}


def _in_doubt(
    source: GradientSource,
    group: Group,
    matrix: GradientMatrix,
    outcome: Outcome,
    found: dict[str, Tensor],
) -> bool:
    """Whether a direction may have left the range of its dtype."""
    odd = source.odd and not source.odd.isdisjoint(group.parameters)
    return bool(odd and narrowed(found.values())) or may_overflow(matrix, outcome)


def _add_record(
    solving: Solving,
    group: Group,
    matrix: GradientMatrix,
    kept: Places,
    names: tuple[str, ...],
    outcome: Outcome,
    applied: bool,
) -> None:
    strategy = solving.config.strategy
    gram = matrix.cross.mean((0, 1)) if matrix.batches > 1 else matrix.gram
    finite = matrix.finite and all(math.isfinite(solving.values[o]) for o in group.objectives)
    solving.records[group.name] = group_record(
        group.name,
        names,
        strategy.name if strategy is not None and applied else "plain",
        len(group.parameters),
        outcome.weights if strategy is not None else None,
        outcome.gap,
        outcome.converged,
        solving.replaying and applied,
        gram if kept is None else gram[np.ix_(kept, kept)],
        matrix.eps if finite and names else None,
        () if kept is None else tuple(o for o in group.objectives if o not in names),
    )

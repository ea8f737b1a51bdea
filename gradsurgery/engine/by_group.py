"""From gradients to directions: per group a gradient matrix, a problem, and Jᵀw."""

from math import isfinite

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.outcome import Outcome
from gradsurgery.engine.absent import present, rows_of, spread
from gradsurgery.engine.checks import check_directions, check_values, may_overflow, total_values
from gradsurgery.engine.config import Config
from gradsurgery.engine.directions import of_chunks
from gradsurgery.engine.gathering import arrived, matrices_of
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.solving import Solving
from gradsurgery.engine.source import GradientSource
from gradsurgery.gradients.coordinates import as_parameters, narrowed
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.scaled import Scaled, Seen
from gradsurgery.record import Record, group_record

Places = NDArray[np.intp] | None  # of the objectives that a problem is solved for; None: all


def from_gradients(
    config: Config,
    source: GradientSource,
    solving: Solving,
) -> tuple[dict[str, Tensor], Record]:
    """The direction of each parameter; a strategy of None only inspects.

    Raises:
        NonFiniteError: for NaN or inf, naming the objective and the group.
        OutOfRangeError: the same under a GradScaler, and for a direction that overflows.
    """
    strategy, trace = config.strategy, source.trace
    solving.groups, solving.reach, rows, idle = arrived(source)
    later = solving.guard != "off"  # gradients are needed after the optimizer's step
    use_up = source.graph is not None and rows is source.rows and not (trace.features or later)
    matrices = matrices_of(config, strategy, source, solving.groups, rows, use_up)
    solving.values = total_values(source, matrices)
    if later:
        solving.matrices = list(zip(solving.groups, matrices, strict=True))
    if config.check and (strategy is not None or source.scale is None):
        check_values(source, solving.values, solving.groups, matrices)
    seen: list[Seen] = list(matrices)
    if solving.metric is not None:
        seen = solving.metric.seen(config, source, solving.groups, matrices)
    places: list[Places] = [None] * len(matrices)
    names = [group.objectives for group in solving.groups]
    if config.zero == "absent" and strategy is not None and strategy.needs_gradients:
        least, pairs = config.min_objectives, zip(solving.groups, seen, strict=True)
        places = [present(m) if group.several(least) else None for group, m in pairs]
        names = [
            group.objectives if kept is None else tuple(group.objectives[i] for i in kept)
            for group, kept in zip(solving.groups, places, strict=True)
        ]
    if strategy is not None and (solving.replay is not None or strategy.acts_on == "losses"):
        solving.begin(names)
    directions = dict(idle)
    doubtful: list[tuple[str, str, Tensor]] = []
    in_chunks: dict[str, tuple[Group, Outcome]] = {}
    every = zip(solving.groups, matrices, seen, places, names, strict=True)
    for group, matrix, view, kept, solved in every:
        part = matrix if kept is None else matrix.only(rows_of(kept, matrix))
        own: Seen = part
        if isinstance(view, Scaled):
            own = view if kept is None else view.only(rows_of(kept, matrix), part)
        finite = matrix.finite and all(isfinite(solving.values[o]) for o in group.objectives)
        outcome, applied = solving.for_group(group, solved, part, finite, own)
        solving.records[group.name] = group_record(
            group.name,
            solved,
            strategy.name if strategy is not None and applied else "plain",
            len(group.parameters),
            outcome.weights if strategy is not None else None,
            outcome.gap,
            outcome.converged,
            solving.replaying and applied,
            part.gram if part.batches == 1 else part.cross.mean((0, 1)),
            part.eps if finite and solved else None,
            () if kept is None else tuple(o for o in group.objectives if o not in solved),
        )
        if strategy is None:
            continue
        if solving.metric is not None and applied and not solving.replaying:
            record = solving.records[group.name]
            solving.records[group.name] = solving.metric.noted(record, own)
        whole = outcome if kept is None else spread(outcome, kept, len(group.objectives))
        found = _directions(source, group, matrix, whole, use_up)
        odd = source.odd and not source.odd.isdisjoint(group.parameters)
        narrow = odd and narrowed(found.values())  # whose range it may have left
        if config.check and not group.unchecked and (narrow or may_overflow(matrix, whole)):
            title = strategy.name if strategy is not None and applied else "sum"
            doubtful += [(title, group.name, d) for d in found.values()]
        directions |= found
        if source.apart:
            in_chunks |= {n: (group, whole) for n in group.parameters if n in source.apart}
    if doubtful:
        check_directions(doubtful)
    if in_chunks:
        directions |= of_chunks(config, source, in_chunks)
    named = None if strategy is None else strategy.name
    step = solving.history.step
    return directions, Record(named, solving.values, solving.records, step, method=source.method)


def _directions(
    source: GradientSource, group: Group, matrix: GradientMatrix, outcome: Outcome, use_up: bool
) -> dict[str, Tensor]:
    if outcome.weights is not None:
        found = matrix.combine(outcome.weights, use_up)
    else:
        assert outcome.direction is not None
        found = matrix.split(outcome.direction)
    parameters = source.with_gradients(group.parameters)
    if source.odd and (odd := source.odd & parameters.keys()):
        found = as_parameters(found, parameters, odd)
    return {n: d for n, d in zip(parameters, found, strict=True) if d is not None}

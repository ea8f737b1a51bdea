"""Gram matrices for the Record of a step that was decided without gradients of single losses."""

from dataclasses import replace

import numpy as np

from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.checks import total_values
from gradsurgery.engine.config import Config
from gradsurgery.engine.gathering import arrived, gather, matrices_of
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.source import GradientSource
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.precision import without_autocast
from gradsurgery.record import GroupRecord, Record


def with_grams(
    config: Config,
    source: GradientSource,
    record: Record,
    cache: TraceCache,
) -> tuple[Record, list[tuple[Group, GradientMatrix]]]:
    """The same record with what `inspect` says of the gradients, and these by group."""
    gather(config, source, cache)
    with without_autocast(source.losses.tensors[0].device):
        groups, _, rows, _ = arrived(source)
        matrices = matrices_of(config, None, source, groups, rows, use_up=False)
        values = total_values(source, matrices)
        pairs = list(zip(groups, matrices, strict=True))
        if config.required.acts_on == "losses":
            found = _by_losses(record, pairs, values)
        else:
            measured = {group.name: (group, matrix) for group, matrix in pairs}
            found = dict(record.groups)
            for name, own in record.groups.items():
                group, matrix = measured.get(name, (None, None))
                if group is not None and matrix is not None and group.objectives == own.objectives:
                    found[name] = _measured(own, matrix, values)
    said = record.method and f"{record.method}; of the Gram matrix: {source.method}"
    return Record(record.strategy, values, found, record.step, method=said), pairs


def _measured(own: GroupRecord, matrix: GradientMatrix, values: dict[str, float]) -> GroupRecord:
    finite = matrix.finite and all(np.isfinite(values[o]) for o in own.objectives)
    return replace(own, gram=matrix.gram, eps=matrix.eps if finite else None)


def _by_losses(
    record: Record, pairs: list[tuple[Group, GradientMatrix]], values: dict[str, float]
) -> dict[str, GroupRecord]:
    """Weights of losses fit any groups: those of a compiled region show only in the gradients."""
    every = next(iter(record.groups.values()))
    weights: dict[str, float] = {}
    for own in record.groups.values():
        if own.weights is not None:
            weights.update(zip(own.objectives, own.weights.tolist(), strict=True))
    found = {}
    for group, matrix in pairs:
        row = np.array([weights[o] for o in group.objectives])
        known = replace(
            every,
            name=group.name,
            objectives=group.objectives,
            parameters=len(group.parameters),
            weights=row,
        )
        found[group.name] = _measured(known, matrix, values)
    return found

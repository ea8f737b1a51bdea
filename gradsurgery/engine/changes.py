"""What the optimizer's step did, written into the record of the step."""

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradsurgery.record import GroupRecord, Record
from gradsurgery.types import Array

SHORT = 0.01  # of the optimizer's step: a corrected one below this is hardly a step


@dataclass(frozen=True)
class Made:
    """The step that was made of a group's parameters.

    Attributes:
        objectives: the group's, n of them.
        change: Ju of the step made [n].
        risen: which of them it raises [n].
        corrected: ‖u'‖/‖u‖, where the optimizer's step was corrected.
        metric: what was corrected in.
        reason: why nothing moved, where it could not.
    """

    objectives: tuple[str, ...]
    change: Array
    risen: NDArray[np.bool_]
    corrected: float | None = None
    metric: str | None = None
    reason: str | None = None

    @classmethod
    def none(
        cls,
        objectives: tuple[str, ...],
        reason: str | None = None,
        corrected: float | None = None,
        metric: str | None = None,
    ) -> "Made":
        """Parameters that did not move."""
        n = len(objectives)
        return cls(objectives, np.zeros(n), np.zeros(n, np.bool_), corrected, metric, reason)


def after(record: Record, made: Mapping[str, Made], missing: Mapping[str, str]) -> Record:
    """The record with what was made of its groups.

    Args:
        record: of the step that was decided.
        made: by group.
        missing: group -> why nothing is known of it.
    """
    groups, known = dict(record.groups), True
    totals = dict.fromkeys(record.losses, 0.0)
    for name, group in record.groups.items():
        own = made.get(name)
        if own is None:
            known = False
            groups[name] = replace(group, unmeasured=missing.get(name, "not measured"))
            continue
        place = {o: i for i, o in enumerate(own.objectives)}
        kept = [place[o] for o in group.objectives]
        groups[name] = replace(
            group,
            change=own.change[kept],
            risen=tuple(o for o in group.objectives if own.risen[place[o]]),
            corrected=own.corrected,
            metric=own.metric,
            unmeasured=own.reason,
        )
        for objective, number in zip(own.objectives, own.change.tolist(), strict=True):
            totals[objective] += number
    new = copy(record)
    new.__dict__.update(groups=groups, change=totals if known else None)
    return new


def unmeasured(record: Record, reason: str) -> Record:
    """The record of a step that the optimizer did not make."""
    return after(record, {}, dict.fromkeys(record.groups, reason))


def counts_of(groups: Iterable[GroupRecord]) -> Counter[str]:
    """How many groups were measured, have risen objectives, and were corrected; and to what.

    "held" are those corrected to no step at all, "short" those to less than a hundredth.
    """
    counts = Counter[str]()
    for group in groups:
        if group.change is not None and group.unmeasured is None:
            part = group.corrected
            counts["measured"] += 1
            counts["risen"] += bool(group.risen)
            if part is not None:
                counts["corrected"] += 1
                counts["held"] += part == 0
                counts["short"] += part < SHORT
    return counts

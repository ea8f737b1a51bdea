"""What a study will run, and how long that takes, from three steps of every method."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gradsurgery.compare.checking import check_task
from gradsurgery.errors import GradSurgeryError
from gradsurgery.study.declaration import Measured, Part
from gradsurgery.study.plans import plan_of


@dataclass(frozen=True)
class Estimate:
    """What a part takes, in one process.

    Attributes:
        part: the part.
        cells: fewest and most runs; more where searches of rates are widened.
        seconds: of these.
        other: how many measurements.
        wrong: why it cannot run, a sentence each.
    """

    part: Part
    cells: tuple[int, int] = (0, 0)
    seconds: tuple[float, float] = (0.0, 0.0)
    other: int = 0
    wrong: tuple[str, ...] = ()

    def said(self, jobs: int) -> str:
        """A line for a person."""
        if self.wrong:
            return f"{self.part.name}: cannot run: {' '.join(self.wrong)}"
        (low, high), (short, long) = self.cells, self.seconds
        count = f"{low}" if low == high else f"{low} to {high}"
        hours = f"{short / 3600 / jobs:.2f}"
        hours += "" if low == high else f" to {long / 3600 / jobs:.2f}"
        more = f", {self.other} other measurements" if self.other else ""
        return f"{self.part.name} ({self.part.tier}): {count} cells{more}, {hours} h"


def estimated(part: Part, how: Measured, data_root: Path | None = None) -> Estimate:
    """Take three steps of each method on a part."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = plan_of(part, data_root)
        found = check_task(plan, plan.tasks[0])
    except (GradSurgeryError, ImportError) as error:
        return Estimate(part, wrong=(f"{type(error).__name__}: {error}",))
    finally:
        torch.set_num_threads(before)
    if found.seconds is None:
        return Estimate(part, wrong=tuple(found.wrong))
    seeds = min(how.seeds, part.seeds)
    each = {"flatness": len(how.flat), "diagnosis": 1}
    other = seeds * sum(each[kind] for kind in part.measured)
    # a run to a declared loss, with its looks at the loss, is counted as two runs
    more = 2 * other * found.seconds / max(1, found.runs)
    return Estimate(
        part,
        (found.runs, found.widened),
        (found.seconds + more, found.longest + more),
        other,
        tuple(found.wrong),
    )


def total(found: list[Estimate], jobs: int) -> Iterator[str]:
    """The last lines: all of it together."""
    short, long = (sum(one.seconds[i] for one in found) / 3600 / jobs for i in (0, 1))
    cells = sum(one.cells[0] for one in found)
    yield f"in all: {cells} cells or more, {short:.1f} to {long:.1f} h with {jobs} processes"

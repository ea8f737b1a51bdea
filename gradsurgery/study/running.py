"""Run a study: its parts through `compare`, then what is measured besides, until time is over."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradsurgery.compare import compare
from gradsurgery.errors import GradSurgeryError
from gradsurgery.study import declared, provenance
from gradsurgery.study.declaration import TIERS, Declaration, Part
from gradsurgery.study.evidence import MEASURED, Evidence, read_evidence
from gradsurgery.study.measured import Cell, cells_of
from gradsurgery.study.measured.running import measure_all
from gradsurgery.study.plans import plan_of
from gradsurgery.study.watch import TimeUpError, Watch


@dataclass
class Outcome:
    """What a start of a study came to.

    Attributes:
        evidence: all rows that there are now.
        impossible: part -> why it could not run.
        stopped: whether the time was over.
        left: measurements that were not made.
    """

    evidence: Evidence
    impossible: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    left: int = 0


def run_study(
    declaration: Declaration,
    out: Path,
    *,
    tiers: Iterable[str] = TIERS,
    jobs: int = 1,
    hours: float | None = None,
    data_root: Path | None = None,
    say: Callable[[str], None] = print,
    source: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the parts of some tiers; what is done is not done again.

    Args:
        declaration: what to run.
        out: the folder: a folder per part, and one for other measurements.
        tiers: which; they run in the order of the declaration.
        jobs: processes that train, of one thread each.
        hours: of all starts on this folder together, by the seconds of their rows over `jobs`. A
            cell at work when they are over is lost.
        data_root: of the tasks.
        say: given lines for a person.
        source: the file of the declaration; that of the study that ships by default.
        clock: in seconds.

    Raises:
        InputError: where there are rows of another declaration.
    """
    parts = declaration.of(tiers)
    names = [tier for tier in TIERS if any(part.tier == tier for part in parts)]
    file = Path(declared.__file__) if source is None else source
    new = provenance.stamp(declaration, file, tiers=names, jobs=jobs, hours=hours)
    provenance.begin(out, new)
    outcome = Outcome(read_evidence(declaration, out))
    used = outcome.evidence.seconds / jobs
    deadline = float("inf") if hours is None else clock() + 3600 * hours - used
    for tier in names:
        own = [part for part in parts if part.tier == tier]
        for part in own:
            if clock() >= deadline:
                outcome.stopped = True
                break
            say(f"{part.name}: {part.task}, {part.seeds} seeds")
            try:
                watch = Watch(part.name, deadline, say, clock)
                compare(plan_of(part, data_root), out / part.name, watch, jobs=jobs)
            except TimeUpError:
                outcome.stopped = True
            except (GradSurgeryError, ImportError) as error:
                outcome.impossible[part.name] = f"{type(error).__name__}: {error}"
                say(f"  {part.name} cannot run: {error}")
        cells = [] if outcome.stopped else _cells(declaration, out, own, outcome.impossible)
        if cells:
            say(f"{tier}: {len(cells)} measurements of flatness and of gradients")
            outcome.left += measure_all(
                cells,
                out / MEASURED,
                jobs=jobs,
                deadline=deadline if clock is time.monotonic else float("inf"),
                told=lambda cell, line: _told(cell, line, say),
                data_root=data_root,
            )
    outcome.evidence = read_evidence(declaration, out)
    outcome.stopped = outcome.stopped or outcome.left > 0
    return outcome


def _cells(
    declaration: Declaration, out: Path, parts: Sequence[Part], impossible: Iterable[str]
) -> list[Cell]:
    """The measurements that are not there yet; those that failed are not repeated."""
    evidence = read_evidence(declaration, out)
    known = {line["key"] for line in evidence.measured}
    possible = [part for part in parts if part.name not in impossible]
    found = [cell for part in possible for cell in cells_of(evidence, part)]
    return [cell for cell in found if cell.key not in known]


def _told(cell: Cell, line: dict[str, object], say: Callable[[str], None]) -> None:
    if "error" in line:
        say(f"  {cell.part}: {cell.kind} of {cell.strategy}, seed {cell.seed}: {line['error']}")

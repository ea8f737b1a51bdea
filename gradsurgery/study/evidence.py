"""The rows of a study, by part: figures per strategy and seed, and verdicts from them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradsurgery.compare import read_results
from gradsurgery.compare.choice import Line, metric_of
from gradsurgery.compare.journal import FILE, MEASURED, cut_off, lines_of
from gradsurgery.compare.statistics import Comparison, Family, judge
from gradsurgery.study import provenance
from gradsurgery.study.declaration import Declaration, Part
from gradsurgery.study.whole import SCALED, SHOWN, SUM, Progress, measurements_of, runs_of

__all__ = ["MEASURED", "SCALED", "SUM", "Evidence", "read_evidence"]
FEW = 5  # strategies that are listed where runs are missing


@dataclass(frozen=True)
class Evidence:
    """What there is: rows per part, other measurements, and the stamps of the declaration.

    Attributes:
        declaration: what the rows were to be.
        lines: part -> its lines; parts without rows are not there.
        measured: the lines of other measurements.
        stamps: one per start of the study.
        torn: lines that were cut off and are left out, a sentence each.
    """

    declaration: Declaration
    lines: Mapping[str, Sequence[Line]]
    measured: Sequence[Line] = ()
    stamps: Sequence[dict[str, Any]] = ()
    torn: Sequence[str] = ()

    @functools.cached_property
    def parts(self) -> list[Part]:
        """The parts that verdicts are drawn from: every declared run has a row.

        A part that is half done would answer with the seeds that happened to come first.
        """
        parts = self.declaration.parts
        return [part for part in parts if self.progress(part).whole and self.figures(part)]

    def progress(self, part: Part) -> Progress:
        """How many of the declared runs of a part have a row, failed ones too."""
        return runs_of(part, self.lines.get(part.name, ()))

    def begun(self, about: Callable[[Part], bool] = lambda part: True) -> list[str]:
        """A sentence for each part that has rows and is not complete.

        Args:
            about: which parts.
        """
        parts = [part for part in self.declaration.parts if self.lines.get(part.name)]
        found = [self.progress(part) for part in parts if about(part)]
        return [one.said for one in found if not one.whole]

    def measuring(self, kind: str) -> list[str]:
        """A sentence for each part whose measurements of a kind are begun and not complete."""
        found = [self._measured(part, kind) for part in self.declaration.parts]
        return [one.said for one in found if one.done and not one.whole]

    def _measured(self, part: Part, kind: str) -> Progress:
        return measurements_of(part, kind, self.declaration.measured, self.measured)

    def figures(
        self, part: Part, objective: str | None = None, split: str = "test"
    ) -> dict[str, dict[int, float]]:
        """Strategy -> seed -> test or validation figure; the primary one by default.

        Runs without that figure, failed ones for example, are left out.
        """
        name = part.primary if objective is None else objective
        found: dict[str, dict[int, float]] = {}
        for line in self.reported(part):
            value = (line.get(split) or {}).get(name)
            if value is not None:
                found.setdefault(line["strategy"], {})[line["seed"]] = value
        return found

    def reported(self, part: Part) -> list[Line]:
        """The rows of declared seeds, failed ones too."""
        return [
            line
            for line in self.lines.get(part.name, ())
            if line["kind"] in SHOWN and line["seed"] in part.reported
        ]

    def choices(self, part: Part) -> dict[str, Line]:
        """Strategy -> how its learning rate was chosen."""
        found = [line for line in self.lines.get(part.name, ()) if line["kind"] == "choice"]
        return {line["strategy"]: line for line in found}

    def better(self, part: Part, objective: str | None = None) -> str:
        """ "higher" or "lower"."""
        return self._metric(part, objective).better or "higher"

    def unit(self, part: Part, objective: str | None = None) -> str:
        """The unit of a difference: percentages differ by points."""
        unit = self._metric(part, objective).unit
        return "points" if unit == "%" else unit

    def _metric(self, part: Part, objective: str | None) -> Any:
        name = part.primary if objective is None else objective
        for line in self.reported(part):
            if (line.get("test") or {}).get(name) is not None:
                return metric_of(line, name)
        raise KeyError(f"{part.name}: no row has a figure of {name!r}")

    def family(
        self, part: Part, baseline: str = SUM, objective: str | None = None
    ) -> Family | None:
        """The verdicts of a part against one baseline; None where that was not run.

        δ is that of the primary figure alone.
        """
        figures = self.figures(part, objective)
        if baseline not in figures or len(figures) < 2:
            return None
        primary = objective in (None, part.primary)
        return judge(
            figures,
            baseline,
            better=self.better(part, objective),
            unit=self.unit(part, objective),
            delta=part.delta if primary else None,
            ratio=self._ratio(part),
        )

    def _ratio(self, part: Part) -> float | None:
        """Of the corrected interval, as the task declared it when it ran."""
        for line in self.lines.get(part.name, ()):
            if line["kind"] == "setup":
                ratio = line["tasks"].get(part.task, {}).get("ratio")
                return None if ratio is None else float(ratio)
        return None

    def against(
        self, part: Part, strategy: str, baseline: str = SUM, objective: str | None = None
    ) -> Comparison | None:
        """One strategy of that family; None where either was not run."""
        family = self.family(part, baseline, objective)
        found = () if family is None else family.comparisons
        return next((x for x in found if x.strategy == strategy), None)

    def pair(
        self, part: Part, strategy: str, baseline: str, split: str = "test"
    ) -> Comparison | None:
        """One strategy against another, outside every family; None where either was not run."""
        figures = self.figures(part, split=split)
        if strategy not in figures or baseline not in figures:
            return None
        found = judge(
            {name: figures[name] for name in (baseline, strategy)},
            baseline,
            better=self.better(part),
            unit=self.unit(part),
            delta=part.delta,
            ratio=self._ratio(part),
        )
        return found.comparisons[0]

    def other(self, kind: str) -> list[Line]:
        """Measurements of a kind that came out, of the parts where all of them were made."""
        parts = self.declaration.parts
        whole = {part.name for part in parts if self._measured(part, kind).whole}
        return [
            line
            for line in self.measured
            if line["kind"] == kind and line["part"] in whole and "error" not in line
        ]

    @property
    def seconds(self) -> float:
        """What all rows took together, those of the search of rates too."""
        lines = [line for part in self.lines.values() for line in part]
        return float(sum(line.get("seconds") or 0.0 for line in [*lines, *self.measured]))

    def missing(self) -> list[str]:
        """What was declared and has no row, in sentences."""
        return [said for part in self.declaration.parts for said in self._missing(part)]

    def _missing(self, part: Part) -> Iterator[str]:
        found = self.progress(part)
        if not self.lines.get(part.name):
            yield f"{part.name}: not run."
            return
        if not found.whole:
            rates = "" if found.done else " Its learning rates were begun."
            listed = [f"{label} ({n})" for label, n in found.lacking.items()]
            few = len(listed) <= FEW and bool(found.done)
            more = f" Missing: {', '.join(listed)}." if few else ""
            yield f"{found.said}{rates}{more}"
        for kind in part.measured:
            if not (measured := self._measured(part, kind)).whole:
                yield measured.said

    @functools.cached_property
    def flags(self) -> list[str]:
        """What speaks against the rows as those of a study that was declared beforehand."""
        lines = [line for part in self.lines.values() for line in part]
        return provenance.flags(self.declaration, self.stamps, [*lines, *self.measured])


def read_evidence(declaration: Declaration, folder: Path) -> Evidence:
    """The rows that there are in the folder of a study.

    Raises:
        InputError: for files that cannot be read as rows.
    """
    lines = {
        part.name: read_results(folder / part.name)
        for part in declaration.parts
        if (folder / part.name / FILE).is_file()
    }
    found: dict[str, Line] = {}
    for path in sorted((folder / MEASURED).glob("*.jsonl")):
        for line in lines_of(path):
            known = found.get(line["key"])
            if known is None or "error" in known:
                found[line["key"]] = line
    torn = [f"{name}/{said}" for name in (*lines, MEASURED) for said in cut_off(folder / name)]
    stamps = provenance.stamps_of(folder)
    return Evidence(declaration, lines, list(found.values()), stamps, torn)

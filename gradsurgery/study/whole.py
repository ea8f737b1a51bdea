"""Whether a part is whole: every declared run or measurement has a row, a failed one too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradsurgery.compare.baselines import lengths
from gradsurgery.compare.choice import Line
from gradsurgery.compare.methods import ALONE, GUARD
from gradsurgery.compare.parsing import parse_strategy
from gradsurgery.study.declaration import Measured, Part

SHOWN = ("run", "control", "alone")
SUM, SCALED = "sum", "scaled-sum"


@dataclass(frozen=True)
class Progress:
    """How many of the declared rows there are.

    Attributes:
        about: what they are of, as the subject of a sentence.
        done: rows that are there.
        declared: rows that there are to be.
        rows: what a row is called.
        lacking: strategy -> how many of its rows are not there.
    """

    about: str
    done: int
    declared: int
    rows: str
    lacking: dict[str, int]

    @property
    def whole(self) -> bool:
        """Whether all of them are there."""
        return not self.lacking

    @property
    def said(self) -> str:
        """A sentence.

        >>> Progress("mfeat", 3, 40, "runs", {"sum": 37}).said
        'mfeat is not complete: 3 of 40 runs.'
        """
        if self.whole:
            return f"{self.about} is complete: {self.declared} {self.rows}."
        return f"{self.about} is not complete: {self.done} of {self.declared} {self.rows}."


def declared_labels(part: Part, lines: Iterable[Line]) -> list[str]:
    """What a part is to report: its strategies, and the baselines that follow from its task.

    The task's losses are known from its rows: the search of rates, or the first seed, has a row of
    every baseline before any strategy has all of its seeds.

    Args:
        part: of the declaration.
        lines: its rows.
    """
    found = [*part.strategies, *(name + GUARD for name in part.guarded)]
    if part.baselines != "none":
        found += [SUM, SCALED, *lengths(dict(map(parse_strategy, part.strategies)))]
        found += [name for name in [part.joint] if name is not None]
        found += [ALONE + name for name in part.modalities]
    kinds = (*SHOWN, "tune", "choice")
    found += [line["strategy"] for line in lines if line["kind"] in kinds]
    return list(dict.fromkeys(found))


def runs_of(part: Part, lines: Sequence[Line]) -> Progress:
    """How far the runs of a part are.

    Args:
        part: of the declaration.
        lines: its rows.
    """
    there = {label: set[int]() for label in declared_labels(part, lines)}
    for line in lines:
        if line["kind"] in SHOWN and line["seed"] in part.reported:
            there[line["strategy"]].add(line["seed"])
    return _progress(part.name, "runs", part.seeds, there)


def measurements_of(part: Part, kind: str, how: Measured, lines: Iterable[Line]) -> Progress:
    """How far the measurements of one kind on a part are.

    Args:
        part: of the declaration.
        kind: "flatness" or "diagnosis".
        how: the declared settings.
        lines: of all measurements.
    """
    trained = declared_labels(part, ())
    labels = [x for x in how.flat if x in trained] if kind == "flatness" else [SUM]
    there = {label: set[int]() for label in labels}
    for line in lines:
        if line["kind"] == kind and line["part"] == part.name:
            there.setdefault(line["strategy"], set()).add(line["seed"])
    seeds = min(how.seeds, part.seeds)
    return _progress(f"The {kind} of {part.name}", "measurements", seeds, there)


def _progress(about: str, rows: str, seeds: int, there: dict[str, set[int]]) -> Progress:
    lacking = {label: seeds - len(seen) for label, seen in there.items() if len(seen) < seeds}
    declared = seeds * len(there)
    return Progress(about, declared - sum(lacking.values()), declared, rows, lacking)

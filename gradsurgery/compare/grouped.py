"""The rows of a comparison by task and strategy, each at the learning rate it is reported at."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradsurgery import InputError
from gradsurgery.compare.apart import apart
from gradsurgery.compare.choice import Line, best_rate
from gradsurgery.compare.plan import BASELINE
from gradsurgery.compare.results import Results

BASELINES = (BASELINE, "scaled-sum")
SHOWN = ("run", "control", "alone")  # the kinds of rows that have test figures
CELL = ("task", "strategy", "seed", "lr")  # what every one of them has


@dataclass(frozen=True)
class Trained:
    """The runs of one strategy on one task.

    Attributes:
        strategy: its label.
        kind: "run", "control" or "alone".
        lr: the learning rate it is reported at: where there was a choice, the one with the best
            validation figures.
        done: the rows at that rate that have figures.
        rows: all rows at that rate.
        failed: the rows with an error, at any rate.
        rates: all learning rates.
    """

    strategy: str
    kind: str
    lr: float
    done: tuple[Line, ...]
    rows: tuple[Line, ...]
    failed: tuple[Line, ...]
    rates: tuple[float, ...]

    @property
    def only(self) -> tuple[str, ...] | None:
        """The losses that it was trained on, where these are not all."""
        given = self.rows[0].get("only")
        return None if given is None else tuple(given)

    def figures(self, objective: str) -> dict[int, float]:
        """Seed -> test figure; of a head that was not trained there is none."""
        found = {line["seed"]: line["test"][objective] for line in self.done}
        return {seed: figure for seed, figure in found.items() if figure is not None}


def prepared(lines: "Iterable[Line] | Results") -> list[Line]:
    """Copies of the lines, in which a run without the figures of its task is a failed one.

    Raises:
        InputError: for what are no lines of results.
    """
    if isinstance(lines, str | Path):
        call = f"summarise(read_results({str(lines)!r}), ...)"
        raise InputError(f"summarise: expected the lines; got a path. Write {call}.")
    if isinstance(lines, Results):
        lines = lines.lines
    lines = apart(dict(line) for line in lines)
    for number, line in enumerate(lines):
        kind = line.get("kind", "")
        wanted = CELL if kind in SHOWN else ("task", "times") if kind == "timing" else ("kind",)
        if missing := [key for key in wanted if key not in line]:
            what = f"line {number + 1} has no {missing[0]!r}"
            raise InputError(f"summarise: {what}: give the lines of a results file, unchanged.")
    _fail_incomplete([line for line in lines if line["kind"] in SHOWN])
    return lines


def trained(lines: Iterable[Line], kinds: Iterable[str] = SHOWN) -> dict[str, list[Trained]]:
    """Per task, the strategies: as they were asked for, then baselines, then losses alone.

    Rows of several processes come in any order. Where nothing says what was asked for, it is that
    of the rows.

    Args:
        lines: as `prepared` gives them.
        kinds: the kinds of rows that are taken.
    """
    grouped: dict[str, dict[str, dict[float, list[Line]]]] = {}
    asked: dict[str, None] = {}
    for line in lines:
        if line["kind"] == "setup":
            asked |= dict.fromkeys(line.get("strategies") or ())
        if line["kind"] in kinds:
            of_task = grouped.setdefault(line["task"], {})
            of_task.setdefault(line["strategy"], {}).setdefault(line["lr"], []).append(line)
    places = {label: place for place, label in enumerate(asked)}
    return {
        task: sorted(
            (_trained(label, by_lr) for label, by_lr in of_task.items()),
            key=lambda one: _place(one, places),
        )
        for task, of_task in grouped.items()
    }


def _place(one: Trained, asked: Mapping[str, int]) -> tuple[int, int, str]:
    """Where it stands among the others of its task."""
    if one.kind == "run":
        return 0, asked.get(one.strategy, len(asked)), ""
    if one.strategy in BASELINES:
        return 1, BASELINES.index(one.strategy), ""
    padded = re.sub(r"\d+(\.\d+)?", lambda found: f"{float(found[0]):020.6f}", one.strategy)
    return 2 if one.kind == "control" else 3, 0, padded  # 2 before 10


def _trained(label: str, by_lr: Mapping[float, list[Line]]) -> Trained:
    lr = best_rate(by_lr)
    rows = by_lr[lr]
    return Trained(
        strategy=label,
        kind=rows[0]["kind"],
        lr=lr,
        done=tuple(line for line in rows if "test" in line),
        rows=tuple(rows),
        failed=tuple(line for group in by_lr.values() for line in group if "error" in line),
        rates=tuple(sorted(by_lr)),
    )


def _finite(figure: float | None) -> bool:
    """Whether it is a figure, or the null of a head that was not trained."""
    return figure is None or math.isfinite(figure)


def _fail_incomplete(lines: Iterable[Line]) -> None:
    """A run without the figures that others of its task have is one that failed."""
    names: dict[str, set[str]] = {}
    for line in lines:
        for part in ("test", "validation"):
            if line.get(part, ...) is None:  # an error row may say so
                del line[part]
        if "test" not in line:
            continue
        found = [set(line[part]) for part in ("test", "validation") if part in line]
        first = names.setdefault(line["task"], found[0]) or found[0]
        names[line["task"]] = first
        wrong = ""
        if not first or any(one != first for one in found):
            had, wanted = (", ".join(map(repr, sorted(x))) or "nothing" for x in (found[0], first))
            wrong = f"InputError: it has figures of {had}; other runs have those of {wanted}."
        elif odd := [o for o, x in line["test"].items() if not _finite(x)]:
            wrong = f"NonFiniteError: the figure of {odd[0]!r} is {line['test'][odd[0]]}."
        if wrong:
            line["error"] = wrong
            del line["test"]
            line.pop("validation", None)

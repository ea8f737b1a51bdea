"""A question, and the answer that rows give to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradsurgery.compare.statistics import Comparison
from gradsurgery.compare.statistics.words import bounds, number
from gradsurgery.study.declaration import Part

PARETO = "mmpareto"
NOT_RUN = "Not run."
VERDICTS = ("better", "worse", "equivalent", "identical", "undecided")


@dataclass(frozen=True)
class Claim:
    """A question of the study.

    Attributes:
        question: as a reader would ask it.
        answer: one or two plain sentences with numbers; "Not run." without rows.
        details: a sentence per part or step.
        used: which rows it is from.
    """

    question: str
    answer: str
    details: tuple[str, ...]
    used: str


def made(question: str, answer: str, details: Sequence[str], used: str) -> Claim:
    """A claim; without details there were no rows."""
    return Claim(question, answer if details else NOT_RUN, tuple(details), used)


def titled(part: Part) -> str:
    """A part's name, and that its rates were not tuned where they were not."""
    return part.name if part.tune else f"{part.name} (one rate for all, not tuned)"


def counted(found: Iterable[str], what: str) -> str:
    """How often each verdict occurs: "better on 1 of 4 tasks, undecided on 3"."""
    verdicts = list(found)
    counts = [(word, verdicts.count(word)) for word in VERDICTS if word in verdicts]
    named = what if len(verdicts) != 1 else what.removesuffix("s")
    said = [
        f"{word} on {n} of {len(verdicts)} {named}" if i == 0 else f"{word} on {n}"
        for i, (word, n) in enumerate(counts)
    ]
    return ", ".join(said)


def measured(x: Comparison, unit: str) -> str:
    """The numbers of a comparison: "+0.1 points, 95 % interval −0.2 to +0.4, 20 seeds"."""
    if x.mean is None:
        return x.pairs.said()
    parts = [number(x.mean, unit, sign=True)]
    if x.interval is not None:
        parts.append(f"95 % interval {bounds(*x.interval)}")
    return ", ".join([*parts, x.pairs.said()])


def joined(names: Iterable[str]) -> str:
    """Names in a sentence."""
    listed = list(names)
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)

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
        answer: one or two plain sentences with numbers; without rows "Not run.", and where parts
            are begun how far they are.
        details: a sentence per part or step.
        used: which rows it is from.
    """

    question: str
    answer: str
    details: tuple[str, ...]
    used: str


def made(
    question: str, answer: str, details: Sequence[str], used: str, left: Sequence[str] = ()
) -> Claim:
    """A claim; without details nothing that it is about is complete.

    Args:
        question: as a reader would ask it.
        answer: from rows of what is complete.
        details: a sentence per part or step.
        used: which rows it is from.
        left: a sentence per part that is begun and not complete.
    """
    if not details:
        return Claim(question, " ".join(left) or NOT_RUN, (), used)
    return Claim(question, answer, (*details, *left), used)


def titled(part: Part) -> str:
    """A part's name, and that its rates were not tuned where they were not."""
    return part.name if part.tune else f"{part.name} (one rate for all, not tuned)"


def counted(found: Iterable[str], what: str, on: str = "on") -> str:
    """How often each verdict occurs: "better on 1 of 4 parts, undecided on 3"."""
    verdicts = list(found)
    counts = [(word, verdicts.count(word)) for word in VERDICTS if word in verdicts]
    named = what if len(verdicts) != 1 else what.removesuffix("s")
    said = [
        f"{word} {on} {n} of {len(verdicts)} {named}" if i == 0 else f"{word} {on} {n}"
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


def small(found: Iterable[tuple[str, Comparison | None]]) -> str:
    """Where a strategy counts as equivalent, and the 95 % interval excludes 0 all the same.

    Args:
        found: what each comparison is called, and the comparison.
    """
    ends = [
        (name, x.interval)
        for name, x in found
        if x is not None and x.verdict == "equivalent" and x.interval is not None
    ]
    signs = (
        ("above", [name for name, (low, _) in ends if low > 0]),
        ("below", [name for name, (_, high) in ends if high < 0]),
    )
    said = [f"{where} 0 on {joined(names)}" for where, names in signs if names]
    if not said:
        return ""
    return f" Of those that count as equivalent, the 95 % interval is {' and '.join(said)}."


def joined(names: Iterable[str]) -> str:
    """Names in a sentence."""
    listed = list(names)
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)

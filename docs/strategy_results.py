"""A strategy's rows in the study, for its page."""

from collections.abc import Iterator

from results_tables import listed

from gradsurgery.compare.statistics.words import bounds, number
from gradsurgery.study import Evidence
from gradsurgery.study.claims.claim import titled


def results_of(evidence: Evidence, name: str) -> list[str]:
    """Its tables in the study, or why there are none."""
    declared = [part for part in evidence.declaration.parts if name in map(_bare, part.strategies)]
    rows = [row for part in evidence.parts for row in _rows(evidence, part, name)]
    if rows:
        head = ["on", "as", "figure", "to the tuned sum", "verdict"]
        return [
            *listed("Each at a tuned learning rate, mean and 95 % interval", [head, *rows]),
            "",
            "Figures, seeds and what was declared: :doc:`../results`.",
        ]
    if declared:
        names = ", ".join(f"``{part.name}``" for part in declared)
        return [f"It is declared for {names}, of which no part is complete yet: :doc:`../results`."]
    return ["It is not in the study (:doc:`../results`)."]


def _rows(evidence: Evidence, part, name: str) -> Iterator[list[str]]:
    for label, values in evidence.figures(part).items():
        if _bare(label) == name:
            x = evidence.against(part, label)
            known = x is not None and x.mean is not None
            interval = f" ({bounds(*x.interval)})" if known and x.interval else ""
            yield [
                titled(part),
                f"``{label}``",
                f"{sum(values.values()) / len(values):.2f}",
                f"{number(x.mean, sign=True)}{interval}" if known else "–",
                x.verdict if known else "–",
            ]


def _bare(label: str) -> str:
    """The strategy of a label as in "mgda, length=sum"."""
    return label.partition(",")[0].partition("(")[0]

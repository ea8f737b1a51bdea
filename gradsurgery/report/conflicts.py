"""Conflict rates and cosines by parameter group."""

import statistics

from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.report.strategies import named
from gradsurgery.report.table import Cell, Row, Table

NOTES = (
    "Conflict: the share of inspected steps at which two objectives of a group had gradients with "
    "a negative cosine. Orthogonal gradients have that half the time.",
    "Each strategy is inspected along its own training, and the groups are at other weights then: "
    "the columns describe runs, and compare no directions.",
)


def conflict_table(conclusion: Conclusion) -> Table | None:
    """A row per strategy and a pair of columns per group; None with fewer than two groups."""
    shown = [one for one in conclusion.trained if one.only is None and one.done]
    groups = list(
        dict.fromkeys(
            name for one in shown for line in one.done for name in line.get("conflict_rate", {})
        )
    )
    if len(groups) < 2:
        return None
    headings = [Cell("strategy")]
    for group in groups:
        headings += [Cell(group, note="conflict, %"), Cell(group, note="cosine")]
    rows = []
    for one in shown:
        cells = [named(one.strategy, conclusion)]
        for group in groups:
            for key, scale, form in (("conflict_rate", 100, ".0f"), ("mean_cosine", 1, "+.2f")):
                values = [
                    scale * line[key][group] for line in one.done if group in line.get(key, {})
                ]
                mean = statistics.fmean(values) if values else None
                cells.append(Cell("-" if mean is None else f"{mean:{form}}", mean))
        rows.append(Row(tuple(cells)))
    return Table(tuple(headings), tuple(rows), NOTES)

"""Tables of the study's page: what was declared, and what came out per part."""

import statistics
from collections.abc import Iterable, Iterator

from prose import paragraph

from gradsurgery.compare.names import short_names
from gradsurgery.compare.statistics.words import bounds, number
from gradsurgery.study import Declaration, Evidence, Part
from gradsurgery.study.claims.claim import titled
from gradsurgery.study.evidence import SCALED, SUM

MOST = 7  # figures beside the primary one that a table has room for


def listed(title: str, rows: Iterable[Iterable[str]]) -> list[str]:
    """A list-table; the first row is its heading."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in rows:
        cells = list(row)
        lines += [f"   * - {cells[0]}", *(f"     - {cell}" for cell in cells[1:])]
    return lines


def parts_table(declaration: Declaration) -> list[str]:
    """The declared parts."""
    head = ["part", "tier", "optimizer", "seeds", "primary", "δ", "besides", "piloted"]
    rows = [
        [
            f"``{part.name}``",
            part.tier,
            part.optimizer or "its own",
            str(part.seeds),
            part.primary,
            f"{part.delta:g}",
            ", ".join(part.measured) or "-",
            "yes" if part.piloted else "no",
        ]
        for part in declaration.parts
    ]
    found = {part.strategies: part for part in declaration.parts}
    lines = listed("Parts", [head, *rows])
    for strategies in found:
        names = [part.name for part in declaration.parts if part.strategies == strategies]
        lines += ["", *(f"* {', '.join(names)}:",)]
        lines += [f"  ``{name}``," for name in strategies[:-1]] + [f"  ``{strategies[-1]}``."]
    return lines


def part_table(evidence: Evidence, part: Part) -> list[str]:
    """What came out: the best difference to sum first."""
    every = [name for name in _objectives(evidence, part) if name != part.primary]
    others = every if len(every) <= MOST else []
    head = ["strategy", part.primary, "to sum", "verdict", "to scaled-sum", *others, "lr", "failed"]
    figures = evidence.figures(part)
    sign = 1 if evidence.better(part) == "higher" else -1
    order = sorted(figures, key=lambda label: -sign * statistics.fmean(figures[label].values()))
    alone = [row["strategy"] for row in evidence.reported(part) if row["strategy"] not in figures]
    labels = [*order, *dict.fromkeys(alone)]
    names = short_names(labels)
    rows = [[f"``{names.of(one)}``", *_row(evidence, part, one, others)] for one in labels]
    unit = evidence.unit(part)
    low = "" if sign > 0 else ", lower is better"
    title = f"{titled(part)}: {part.primary} ({unit or 'figure'}{low}), {part.seeds} seeds declared"
    if len(every) > MOST:
        title += f"; its {len(every)} other figures are in the rows"
    legend = ["", *paragraph(names.legend.replace("'", '"'))] if names.legend else []
    return [*listed(title, [head, *rows]), *legend]


def _row(evidence: Evidence, part: Part, label: str, others: list[str]) -> Iterator[str]:
    yield _mean(evidence, part, label, None)
    x = evidence.against(part, label)
    shown = x is not None and x.mean is not None
    yield _difference(x) if shown else "-"
    yield x.verdict if x is not None else "-"
    against = evidence.against(part, label, SCALED) if label != SUM else None
    yield against.verdict if against is not None else "-"
    for name in others:
        yield _mean(evidence, part, label, name)
    choice = evidence.choices(part).get(label)
    rows = [row for row in evidence.reported(part) if row["strategy"] == label]
    edge = f", {choice['edge']} edge" if choice and choice["edge"] else ""
    yield (f"{rows[0]['lr']:.3g}" if rows else "-") + edge
    yield f"{sum('error' in row for row in rows)} of {len(rows)}"


def _difference(x) -> str:
    interval = "" if x.interval is None else f" ({bounds(*x.interval)})"
    return f"{number(x.mean, sign=True)}{interval}"


def _mean(evidence: Evidence, part: Part, label: str, objective: str | None) -> str:
    values = list(evidence.figures(part, objective).get(label, {}).values())
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def _objectives(evidence: Evidence, part: Part) -> list[str]:
    rows = evidence.reported(part)
    return list(dict.fromkeys(name for row in rows for name in row.get("test") or {}))

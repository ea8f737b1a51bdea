"""Response curves: the validation figure of each strategy against the learning rate."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gradsurgery.compare.choice import Line, best_rate
from gradsurgery.compare.grouped import SHOWN, prepared
from gradsurgery.compare.results import Results
from gradsurgery.compare.selection import Selection, selection_of


@dataclass(frozen=True)
class Curve:
    """One strategy's figure at each rate that was tried.

    Attributes:
        strategy: its label.
        kind: "run", "control" or "alone"; None where its rate is not chosen yet.
        rates: those that were tried, ascending.
        figures: per rate, seed -> the figure by which the rate is chosen, of the runs that ended.
        failed: per rate, how many runs failed.
        chosen: the rate that the strategy is reported at; None where that is not known yet.
        edge: "low" or "high" where the best rate is the last one on that side.
        what: the figure, in words; None where every run failed.
        names: the figures that it is the mean of.
        better: "higher" or "lower"; None where every run failed.
    """

    strategy: str
    kind: str | None
    rates: tuple[float, ...]
    figures: tuple[Mapping[int, float], ...]
    failed: tuple[int, ...]
    chosen: float | None
    edge: str | None
    what: str | None
    names: tuple[str, ...]
    better: str | None

    @property
    def means(self) -> tuple[float | None, ...]:
        """Per rate, the mean over the seeds that ended; None where none did."""
        return tuple(statistics.fmean(x.values()) if x else None for x in self.figures)


def curves(lines: "Iterable[Line] | Results") -> dict[str, list[Curve]]:
    """Per task, the response curves of a tuned comparison, or of one at several rates.

    The figures are validation figures: of the tuning seeds with `--tune`, of the reported seeds
    where rates were given. Strategies with one rate have no curve.

    Args:
        lines: of a results file, as `read_results` gives them; or what `compare` returned.

    Raises:
        InputError: for what are no lines of results.
    """
    lines = prepared(lines)
    kinds = {(x["task"], x["strategy"]): x["kind"] for x in lines if x["kind"] in SHOWN}
    choices = {(x["task"], x["strategy"]): x for x in lines if x["kind"] == "choice"}
    tuned = any(line["kind"] == "tune" for line in lines)
    grouped: dict[tuple[str, str], dict[float, list[Line]]] = {}
    for line in lines:
        if line["kind"] == "tune" if tuned else line["kind"] in SHOWN:
            by_rate = grouped.setdefault((line["task"], line["strategy"]), {})
            by_rate.setdefault(line["lr"], []).append(line)
    found: dict[str, list[Curve]] = {}
    for (task, strategy), by_rate in grouped.items():
        if len(by_rate) < 2:
            continue
        choice = choices.get((task, strategy))
        chosen = choice["lr"] if choice else None if tuned else best_rate(by_rate)
        edge = choice["edge"] if choice else None if tuned else _edge(chosen, by_rate)
        kind = kinds.get((task, strategy))
        found.setdefault(task, []).append(_curve(strategy, kind, by_rate, chosen, edge))
    return found


def _edge(chosen: float | None, rates: Iterable[float]) -> str | None:
    low, *_, high = sorted(rates)
    return "low" if chosen == low else "high" if chosen == high else None


def _curve(
    strategy: str,
    kind: str | None,
    by_rate: Mapping[float, list[Line]],
    chosen: float | None,
    edge: str | None,
) -> Curve:
    rates = tuple(sorted(by_rate))
    done = next((x for rate in rates for x in by_rate[rate] if "validation" in x), None)
    rule = None if done is None else selection_of(done)
    figures = tuple(_by_seed(by_rate[rate], rule) for rate in rates)
    return Curve(
        strategy=strategy,
        kind=kind,
        rates=rates,
        figures=figures,
        failed=tuple(len(by_rate[rate]) - len(x) for rate, x in zip(rates, figures, strict=True)),
        chosen=chosen,
        edge=edge,
        what=None if rule is None else rule.what,
        names=() if rule is None else rule.names,
        better=None if rule is None else ("higher" if rule.higher else "lower"),
    )


def _by_seed(rows: Iterable[Line], rule: Selection | None) -> dict[int, float]:
    if rule is None:
        return {}
    found = {row["seed"]: rule.figure(row) for row in rows}
    return {seed: value for seed, value in found.items() if value is not None}

"""The learning rate of one method: a grid on seeds of its own, widened at an edge."""

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gradsurgery.compare.choice import Line
from gradsurgery.compare.selection import Selection, selection_of
from gradsurgery.errors import NonFiniteError, OutOfRangeError

SEEDS = (1000, 1001, 1002)  # none of these is reported
FACTOR = 1.5  # a coarser grid can make a longer step appear as a better method
FIRST, MOST = 6, 12
DIVERGED = (NonFiniteError.__name__, OutOfRangeError.__name__)


def rate_of(middle: float, place: int) -> float:
    """The rate at a place of the grid; places 0 to 5 are the first six, around the middle."""
    return float(f"{middle * FACTOR ** (place - (FIRST - 1) / 2):.6g}")


@dataclass
class Search:
    """The search of one method's rate: what it needs next, and what it has found.

    Args:
        middle: the geometric middle of the rates that are tried first.
    """

    middle: float
    rows: dict[float, dict[int, Line]] = field(default_factory=dict)
    low: int = 0
    high: int = FIRST - 1
    edge: str | None = None
    done: bool = False

    @property
    def rates(self) -> list[float]:
        """Those that are tried, ascending."""
        return [rate_of(self.middle, place) for place in range(self.low, self.high + 1)]

    def add(self, line: Line) -> list[float]:
        """Take a row; rates to try next, where this completes a round and one more is needed."""
        self.rows.setdefault(line["lr"], {})[line["seed"]] = line
        if self.done or any(len(self.rows.get(rate, ())) < len(SEEDS) for rate in self.rates):
            return []
        return self._widened()

    def _widened(self) -> list[float]:
        """One rate more beside the best where that is at an edge; else the search is done."""
        rates = self.rates
        side = self._side(rates)
        if side is None or len(rates) == MOST:
            self.edge, self.done = side, True
            return []
        if side == "low":
            self.low -= 1
            return [self.rates[0]]
        self.high += 1
        return [self.rates[-1]]

    def _side(self, rates: Sequence[float]) -> str | None:
        """The edge that the best rate is at."""
        if not self._finished():
            # A run that diverges may not at a lower rate. Other errors do not depend on it.
            errors = [line["error"] for line in self._lines()]
            return "low" if all(any(n in error for n in DIVERGED) for error in errors) else None
        best = self.best()
        return {rates[0]: "low", rates[-1]: "high"}.get(best)

    def _lines(self) -> list[Line]:
        return [line for rows in self.rows.values() for line in rows.values()]

    def _finished(self) -> list[Line]:
        return [line for line in self._lines() if "error" not in line]

    def _selection(self) -> Selection | None:
        done = self._finished()
        return selection_of(done[0]) if done else None

    def best(self, seeds: Sequence[int] = SEEDS) -> float:
        """The rate with the fewest failures, of those the one with the best mean figure.

        Of equal ones it is the one nearest to the middle of those tried, and the lower of two.
        """
        rates, chosen = self.rates, self._selection()
        if chosen is None:
            return self.middle

        def worth(place: int) -> tuple[float, ...]:
            rows = [self.rows[rates[place]][seed] for seed in seeds]
            values = [value for row in rows if (value := chosen.figure(row)) is not None]
            mean = statistics.fmean(values) if values else 0.0
            centred = -abs(place - (len(rates) - 1) / 2)
            return (len(values), mean if chosen.higher else -mean, centred, -place)

        return rates[max(range(len(rates)), key=worth)]

    def choice(self, **which: Any) -> Line:
        """The line of results that says what was chosen, and how.

        Args:
            which: the task, strategy and optimizer.
        """
        chosen = self._selection()
        figures: dict[str, float | None] = {}
        for rate in self.rates:
            rows = self.rows[rate].values()
            found = [chosen.figure(row) for row in rows] if chosen else []
            values = [value for value in found if value is not None]
            figures[str(rate)] = statistics.fmean(values) if values else None
        # every resample of the tuning seeds, each as likely as the others
        draws = list(itertools.product(SEEDS, repeat=len(SEEDS)))
        counts = Counter(map(self.best, draws))
        seeds = ", ".join(map(str, SEEDS))
        said = (
            "no run gave a figure: the middle of the rates that were tried first"
            if chosen is None
            else chosen.rule
        )
        return {
            "kind": "choice",
            **which,
            "lr": self.best(),
            "rates": self.rates,
            "figures": figures,
            "edge": self.edge,
            "rule": said.format(seeds=seeds),
            "seeds": list(SEEDS),
            "frequency": {str(rate): counts[rate] / len(draws) for rate in self.rates},
        }

"""Which cells of a plan are next; those of a tuned one follow from the figures of others."""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradsurgery.compare.cell import key_of
from gradsurgery.compare.choice import Line
from gradsurgery.compare.methods import Method
from gradsurgery.compare.plan import Plan, Run
from gradsurgery.compare.tuning import SEEDS, Search
from gradsurgery.tasks import Task

Place = tuple[str, str | None, str]  # task, optimizer, label
TUNING, REPORTED = 0, 1


@dataclass(frozen=True)
class _Entry:
    """A method on a task, where it is in the plan, and the search of its rate."""

    task: Task
    optimizer: str | None
    method: Method
    order: int
    search: Search = field(compare=False)

    @property
    def which(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "strategy": self.method.label,
            "optimizer": self.optimizer,
        }


class Agenda:
    """The cells of a plan in the order in which they are trained, without those that are done.

    Seeds come last, so that what is done early can already be compared. All that depends on
    figures depends on complete sets of rows, never on the order in which they come.

    Args:
        plan: what to compare.
        methods: task -> what is trained on it.
        lines: of results that are there already.
    """

    def __init__(
        self, plan: Plan, methods: Mapping[str, list[Method]], lines: Iterable[Line]
    ) -> None:
        self._plan = plan
        self._known: dict[str, Line] = {}
        self._chosen: dict[Place, Line] = {}
        self._tuned: Counter[Place] = Counter()
        for line in lines:
            if "key" in line:
                self._known[line["key"]] = line
                if line["kind"] == "tune":
                    self._tuned[line["task"], line["optimizer"], line["strategy"]] += 1
            elif line["kind"] == "choice":
                self._chosen[line["task"], line["optimizer"], line["strategy"]] = line
        self._heap: list[tuple[tuple[int, ...], int, Run]] = []
        self._number = itertools.count()
        self._searches: dict[Place, _Entry] = {}
        self._choices: list[Line] = []
        self._finished = self._working = self._waiting = 0
        places = itertools.product(plan.tasks, plan.optimizers)
        for order, (task, optimizer) in enumerate(places):
            for method in methods[task.name]:
                middle = plan.middle(task)
                self._begin(_Entry(task, optimizer, method, order, Search(middle)))

    @property
    def total(self) -> int:
        """How many cells there are, as far as that is known."""
        return self._finished + self._working + len(self._heap) + self._waiting

    @property
    def done(self) -> bool:
        """Whether nothing is left and nothing can follow."""
        return not self._heap and not self._working

    def next(self) -> Run | None:
        """The cell to train next; None where there is none now."""
        if not self._heap:
            return None
        self._working += 1
        return heapq.heappop(self._heap)[2]

    def took(self, run: Run, line: Line) -> None:
        """A cell that `next` gave has this row."""
        self._working -= 1
        self._finish(run, line)

    def choices(self) -> list[Line]:
        """The lines about rates that were chosen since this was last asked for."""
        made, self._choices = self._choices, []
        return made

    def _begin(self, entry: _Entry) -> None:
        which = entry.which
        place = which["task"], which["optimizer"], which["strategy"]
        if not self._plan.tune:
            self._report(entry, self._plan.lrs or (entry.task.lr,))
        elif place in self._chosen:
            self._finished += self._tuned[place]
            self._report(entry, (self._chosen[place]["lr"],))
        else:
            self._waiting += len(self._plan.seeds)
            self._searches[place] = entry
            self._tune(entry, entry.search.rates, 0)

    def _tune(self, entry: _Entry, rates: Iterable[float], round_: int) -> None:
        for (i, seed), rate in itertools.product(enumerate(SEEDS), list(rates)):
            self._add((TUNING, round_, i, entry.order), self._run(entry, seed, rate, "tune"))

    def _report(self, entry: _Entry, rates: Iterable[float]) -> None:
        for (i, seed), (j, rate) in itertools.product(
            enumerate(self._plan.seeds), enumerate(rates)
        ):
            run = self._run(entry, seed, rate, entry.method.kind)
            self._add((REPORTED, i, entry.order, j), run)

    def _run(self, entry: _Entry, seed: int, rate: float, kind: str) -> Run:
        length = self._plan.length_of(entry.task)
        method = entry.method
        return Run(
            entry.task.name, method.label, seed, rate, *length, entry.optimizer, kind, method.only
        )

    def _add(self, priority: tuple[int, ...], run: Run) -> None:
        line = self._known.get(key_of(self._plan, run))
        if line is None:
            heapq.heappush(self._heap, (priority, next(self._number), run))
        else:
            self._finish(run, line)

    def _finish(self, run: Run, line: Line) -> None:
        self._finished += 1
        if run.kind != "tune":
            return
        entry = self._searches[run.task, run.optimizer, run.strategy]
        search = entry.search
        before = len(search.rates)
        more = search.add(line)
        if more:
            self._tune(entry, more, before)
        elif search.done:
            self._waiting -= len(self._plan.seeds)
            choice = search.choice(**entry.which)
            self._choices.append(choice)
            self._report(entry, (choice["lr"],))

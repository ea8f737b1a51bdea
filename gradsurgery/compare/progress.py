"""Progress bars for a comparison, on stderr, and a line for every run that ends."""

import signal
import threading
from types import TracebackType
from typing import Any

from gradsurgery.compare.columns import form_of, written
from gradsurgery.compare.names import short_names
from gradsurgery.compare.plan import Plan, Run
from gradsurgery.errors import extra


class Bars:
    """A listener with two bars: all runs, and the one at work. A context manager.

    Within it Ctrl-C and SIGTERM take effect at the next step, so that no line of results is torn; a
    second one takes effect at once.

    Args:
        plan: what will be run.
    """

    def __init__(self, plan: Plan) -> None:
        with extra("compare", "the progress bars"):
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True, highlight=False))
        self._all = self._progress.add_task("runs", total=None)
        self.total = 0
        self._one = self._progress.add_task("", visible=False)
        self._tuned = plan.choosing
        self._several = len(plan.optimizers) > 1
        self.current: Run | None = None
        self.step = (0, 0)
        self._started = False
        self.stopped_by: int | None = None  # the number of the signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Bars":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def start(self, done: int = 0) -> None:
        """Show the bars; so many runs are done already."""
        self._progress.update(self._all, completed=done)
        self._started = True
        self._progress.start()

    def _interrupt(self, number: int, frame: Any) -> None:
        if self.stopped_by is not None:
            raise KeyboardInterrupt
        self.stopped_by = number

    def _check(self) -> None:
        if self.stopped_by is not None:
            raise KeyboardInterrupt

    def waiting(self) -> None:
        """Nothing has happened yet: a process that trains is being started, for example."""
        self._check()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._progress.update(self._one, visible=False)
        if self._started:  # else rich prints an empty line above the error
            self._progress.stop()

    @property
    def title(self) -> str:
        """The run at work."""
        return "" if self.current is None else self._title(self.current)

    def planned(self, total: int) -> None:
        """So many runs there are, as far as is known."""
        self.total = total
        self._progress.update(self._all, total=total)

    def timing(self, task: str, rounds: int) -> None:
        """Show the rounds in which the step times are taken."""
        self._progress.reset(
            self._one, total=rounds, description=f"{task}: step times", visible=True
        )

    def timed(self) -> None:
        """One round further."""
        self._check()
        self._progress.advance(self._one)

    def started(self, run: Run) -> None:
        """Show a run."""
        self._check()
        self.current, self.step = run, (0, 0)
        self._progress.reset(self._one, total=None, description=self.title, visible=True)

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """One step further."""
        self._check()
        self.step = (step, steps)
        self._progress.update(
            self._one, total=steps, completed=step, description=f"{self.title}, loss {loss:.3f}"
        )

    def finished(self, run: Run, line: dict[str, Any]) -> None:
        """Say how it ended."""
        figures = line.get("test") or line.get("validation") or {}
        said = line.get("error") or ", ".join(
            f"{name} {written(value, form_of([value]))}"
            for name, value in figures.items()
            if value is not None
        )
        if run.kind == "tune" and "error" not in line:
            said = f"validation {said}"
        seconds = f" ({line['seconds']:.0f} s)" if "seconds" in line else ""
        self._progress.console.print(
            f"{self._title(run)}: {said}{seconds}", markup=False, soft_wrap=True
        )
        self._progress.advance(self._all)
        self.current = None

    def _title(self, run: Run) -> str:
        label = short_names([run.strategy]).of(run.strategy)
        said = f"{run.task}, {label}, seed {run.seed}"
        said += f", {run.optimizer}" if self._several else ""
        return said + (f", lr {run.lr:.4g}" if self._tuned else "")

"""A listener that says how far a part is, now and then, and stops it when the time is over."""

import time
from collections.abc import Callable
from typing import Any

EVERY = 60.0  # seconds between two words


class TimeUpError(BaseException):
    """The hours of a study are over. No Exception, so that no row takes it for its failure."""


class Watch:
    """A listener of `compare`.

    Args:
        name: of the part.
        deadline: of the clock.
        say: given lines for a person.
        clock: in seconds.
    """

    def __init__(
        self,
        name: str,
        deadline: float,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._deadline, self._say, self._clock = name, deadline, say, clock
        self._begun = self._said = clock()
        self._total: int | None = None
        self._done = 0

    def planned(self, total: int) -> None:
        """So many cells there are, as far as is known."""
        self._total = total

    def timing(self, task: str, rounds: int) -> None:
        """Say nothing."""

    def timed(self) -> None:
        """Say nothing."""

    def started(self, run: Any) -> None:
        """Say nothing."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def finished(self, run: Any, line: dict[str, Any]) -> None:
        """Count a cell of which the row is on the disk.

        Raises:
            TimeUpError: when the time is over.
        """
        self._done += 1
        now = self._clock()
        if "error" in line:
            self._say(f"  {self._name}: {run.strategy}, seed {run.seed} failed: {line['error']}")
        if now - self._said >= EVERY:
            self._said = now
            of = "" if self._total is None else f"; {self._total} in all so far"
            minutes = (now - self._begun) / 60
            self._say(f"  {self._name}: {self._done} cells in {minutes:.0f} min{of}")
        if now >= self._deadline:
            raise TimeUpError

"""What is told how far a comparison is."""

from typing import Any, Protocol

from gradsurgery.compare.plan import Run


class Listener(Protocol):
    """What is told how far a comparison is."""

    def timing(self, task: str, rounds: int) -> None:
        """The step times of a task are taken next, in so many rounds."""

    def timed(self) -> None:
        """One of those rounds is done."""

    def started(self, run: Run) -> None:
        """A run begins."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """It took a step."""

    def finished(self, run: Run, line: dict[str, Any]) -> None:
        """It ended, and its line is in the file."""


def planned(listener: Listener, total: int) -> None:
    """Say how many cells there are now, to a listener that has `planned(total)`.

    The rates of a tuned plan are found on the way, and their number grows.
    """
    told = getattr(listener, "planned", None)
    if told is not None:
        told(total)


def waiting(listener: Listener) -> None:
    """Say that nothing has happened yet, to a listener that has `waiting()`: Ctrl-C is heeded."""
    told = getattr(listener, "waiting", None)
    if told is not None:
        told()


class Silence:
    """A listener that says nothing."""

    def timing(self, task: str, rounds: int) -> None:
        """Say nothing."""

    def timed(self) -> None:
        """Say nothing."""

    def started(self, run: Run) -> None:
        """Say nothing."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def finished(self, run: Run, line: dict[str, Any]) -> None:
        """Say nothing."""
